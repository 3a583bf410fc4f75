"""Values that differ from a value: what an operator of a program is asked beside what a test asks.

Standard library only: this is loaded inside the sandbox.
"""

from __future__ import annotations

import datetime
import enum
import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

PROGRAM_MODULE = "solution"  # what pytest-style tests import the program as
CHANCE = random.SystemRandom()  # not to be foretold, and not the `random` that programs seed


def _far() -> int:
    return CHANCE.randrange(10, 100)


_FAKES: dict[type, Callable[[Any], tuple[object, ...]]] = {
    bool: lambda value: (not value, "x", None),
    int: lambda value: (
        *(value + 1, value - 1, value + 2, value - 2, value + 4, value + _far(), value - _far()),
        *(-value - 1, 2 * value + 3, 0 if value else 7),
    ),
    float: lambda value: (
        *(value + 1.0, value - 1.0, value + 2.0, value - 2.0, value + _far(), value - _far()),
        *(-value - 0.5, 2 * value + 3.0),
    ),
    complex: lambda value: (value + 1, value - 2j, 2 * value + _far()),
    str: lambda value: (
        *(value + "x", value[1:] if value else "y", value.swapcase() + " ", "?"),
        "".join(map(chr, (97 + _far() % 26 for _ in value))) + "j",
    ),
    bytes: lambda value: (value + b"x", b"?"),
    list: lambda value: (
        *([*value, 0], value[1:] if value else [1], [None]),
        *([*value[:at], Nothing(), *value[at + 1 :]] for at in range(min(len(value), 4))),
    ),
    tuple: lambda value: (
        *((*value, 0), value[1:] if value else (1,), (None,)),
        *((*value[:at], Nothing(), *value[at + 1 :]) for at in range(min(len(value), 4))),
    ),
    dict: lambda value: ({**value, "x": 0}, {None: None}, dict.fromkeys(value, Nothing())),
    set: lambda value: (value | {"x", 0.5}, {None}, {_far() + at for at in range(len(value))}),
    frozenset: lambda value: (value | {"x", 0.5}, frozenset({None})),
    Decimal: lambda value: (value + 1, value - 2, value + _far()),
    Fraction: lambda value: (value + 1, value - 2, value + _far()),
    datetime.date: lambda value: tuple(value + datetime.timedelta(n) for n in (1, -2, _far())),
    datetime.timedelta: lambda value: (value + datetime.timedelta(1), value * 2 + _A_DAY),
    type(None): lambda _: (0, "", False),
}
_A_DAY = datetime.timedelta(1)


class Nothing:
    """A value that is equal to no other."""


def fakes_of(value: object) -> tuple[object, ...]:
    """Values of the same kind that differ from this one."""
    for kind in type(value).__mro__:
        if kind in _FAKES:
            try:
                fakes = _FAKES[kind](value)
            except Exception:  # noqa: BLE001 - at the end of what the type can hold
                return ()
            return tuple(CHANCE.sample(fakes, len(fakes)))
    return ()


def variants_of(value: Any) -> tuple[object, ...]:  # noqa: ANN401
    """Objects of the same class that hold other things."""
    kind = cast("Any", type(value))
    if isinstance(value, enum.Enum):
        return tuple(member for member in kind if member is not value)
    try:
        return tuple(_variant(value, kind, 3) for _ in range(_NUM_VARIANTS))
    except Exception:  # noqa: BLE001 - the program's own class, or one that is not to be copied
        return ()


_NUM_VARIANTS = 7
_FILLED: tuple[Any, ...] = (list, dict, set)
_BASES: tuple[Any, ...] = (tuple, list, dict, set, str, int, float)


def _variant(value: Any, kind: Any, depth: int) -> object:  # noqa: ANN401
    base = cast("Any", next((c for c in _BASES if issubclass(kind, c)), None))
    other = cast("Any", None if base is None else _FAKES[base](base(value))[0])
    if base is None:
        made = object.__new__(kind)
    else:
        made = base.__new__(kind, other)
        if base in _FILLED:
            base.__init__(made, other)
    slots = [name for c in kind.__mro__ for name in _slots_of(c)]
    held: dict[str, Any] = {n: getattr(value, n) for n in slots if hasattr(value, n)}
    held |= getattr(value, "__dict__", {})
    if not held and base is None:
        message = "holds nothing"
        raise ValueError(message)
    for name, item in held.items():
        object.__setattr__(made, name, _other(item, depth))
    return made


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = cast("Any", vars(kind)).get("__slots__", ())
    names: tuple[str, ...] = (slots,) if isinstance(slots, str) else tuple(slots)
    private = kind.__name__.lstrip("_")
    return tuple(
        f"_{private}{n}" if n.startswith("__") and not n.endswith("__") else n for n in names
    )


def _other(item: Any, depth: int) -> object:  # noqa: ANN401
    kind = cast("Any", type(item))
    if isinstance(item, enum.Enum):
        return next(iter(variants_of(item)), item)
    if kind.__module__ == PROGRAM_MODULE and depth:
        return (
            variants_of(item)[0] if isinstance(item, enum.Enum) else _variant(item, kind, depth - 1)
        )
    others = fakes_of(item)
    return others[0] if others else item


def is_made_from_nothing(kind: type) -> bool:
    """Whether all objects of a class are alike when they are made."""
    return kind.__init__ is object.__init__ and kind.__new__ is object.__new__
