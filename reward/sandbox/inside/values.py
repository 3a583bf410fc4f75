"""Values as they leave and enter a confined process: JSON that says their exact builtin type.

None, booleans, small integers, floats, strings and lists stand for themselves; everything else is
an object with one key, from `_ENCODERS`. An instance of a subclass is read with the methods of the
builtin, so what it overrides is never asked. Standard library only: this is loaded inside the
sandbox, and outside it to read what a program wrote, where nothing of it is ever evaluated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

_MAX_DEPTH = 100
_MAX_NODES = 300_000
_EXACT = 2**53


class TooLargeError(Exception):
    """A value has too many parts to be passed on."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that is not built from builtin types; equal to nothing that a test can expect."""

    text: str


class Encoder:
    """Turns one value into JSON; `other` says what stands for a value that is none of ours."""

    def __init__(self, other: Callable[[Any], object], max_nodes: int = _MAX_NODES) -> None:
        self._other = other
        self._max_nodes = max_nodes
        self._num_nodes = 0
        self.is_exact = True  # no part was an instance of a subclass, or of none of these types

    def encode(self, value: Any, depth: int = 0) -> object:  # noqa: ANN401 - any value at all
        """Return what `json.dumps` writes for `value`. Raises TooLargeError."""
        self._num_nodes += 1
        if self._num_nodes > self._max_nodes:
            raise TooLargeError
        if value is None:
            return None
        if depth < _MAX_DEPTH:
            for base in type(value).__mro__:
                encoder = _ENCODERS.get(base)
                if encoder is not None:
                    self.is_exact = self.is_exact and base is type(value)
                    return encoder(self, value, depth + 1)
            # Scalars and arrays of numpy compare equal to numbers and lists in ordinary Python.
            if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
                self.is_exact = False
                return self.encode(value.tolist(), depth + 1)
        return self._other(value)


def _integer(_: Encoder, value: int, __: int) -> object:
    exact = int.__pos__(value)
    return exact if -_EXACT < exact < _EXACT else {"int": hex(exact)}


def _sequence(encoder: Encoder, value: list[Any], depth: int) -> list[object]:
    return [encoder.encode(item, depth) for item in list[Any].__iter__(value)]


def _pairs(encoder: Encoder, value: dict[Any, Any], depth: int) -> object:
    items = [
        [encoder.encode(key, depth), encoder.encode(item, depth)]
        for key, item in dict[Any, Any].items(value)
    ]
    return {"dict": items}


def _items(word: str, iterate: Callable[[Any], Any]) -> Callable[[Encoder, Any, int], object]:
    return lambda self, value, depth: {word: _sequence(self, list(iterate(value)), depth)}


_ENCODERS: dict[type, Callable[[Encoder, Any, int], object]] = {
    bool: lambda _, value, __: bool(value),
    int: _integer,
    float: lambda _, value, __: float.__pos__(value),
    str: lambda _, value, __: str.__str__(value),
    bytes: lambda _, value, __: {"bytes": bytes.hex(value)},
    bytearray: lambda _, value, __: {"bytearray": bytearray.hex(value)},
    complex: lambda _, value, __: {"complex": [value.real, value.imag]},
    list: _sequence,
    tuple: _items("tuple", tuple[Any, ...].__iter__),
    set: _items("set", set[Any].__iter__),
    frozenset: _items("frozenset", frozenset[Any].__iter__),
    deque: _items("deque", deque[Any].__iter__),
    dict: _pairs,
    range: lambda self, value, depth: {
        "range": _sequence(self, [value.start, value.stop, value.step], depth)
    },
    Decimal: lambda _, value, __: {"decimal": Decimal.__str__(value)},
    Fraction: lambda _, value, __: {"fraction": Fraction.__str__(value)},
}


def describe(value: object) -> object:
    """What stands for a value of the program's own: a text, for people."""
    return {"opaque": f"{type(value).__name__}: {repr(value)[:300]}"}


class Decoder:
    """Turns such JSON back into values; `others` reads further words."""

    def __init__(self, others: Mapping[str, Callable[[Any], object]]) -> None:
        self._others = others

    def decode(self, value: object) -> Any:  # noqa: ANN401 - any value at all
        """Return the value. Raises ValueError, TypeError or LookupError on anything else."""
        if isinstance(value, list):
            return [self.decode(item) for item in cast("list[object]", value)]
        if not isinstance(value, dict):
            return value
        ((word, content),) = cast("dict[str, Any]", value).items()
        if word in self._others:
            return self._others[word](content)
        if word == "dict":
            return {self.decode(key): self.decode(item) for key, item in content}
        if word in _COLLECTIONS:
            return _COLLECTIONS[word]([self.decode(item) for item in content])
        return _SCALARS[word](content)


_COLLECTIONS: Mapping[str, Callable[[list[Any]], object]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "range": lambda parts: range(*parts),
}
_SCALARS: Mapping[str, Callable[[Any], object]] = {
    "int": lambda content: int(content, 16),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda content: complex(*content),
    "decimal": Decimal,
    "fraction": Fraction,
    "opaque": Opaque,
}

PLAIN = Decoder({})
