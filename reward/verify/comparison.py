"""Comparison of an output with what was expected: the rules of the verdict, without the program.

A `Protocol` is one set of rules: how returned values and standard output are compared, and what a
program may rely on. `DEFAULT` is ours; those of published graders stand in
`reward.verify.protocols`. docs/evaluation.md has all of them side by side.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import cast

from conf.errors import UserError
from reward.sandbox.inside.preamble import PREAMBLE

TOLERANCE = 1e-6  # what statements of problems usually ask for: absolute or relative error

# A number as programs print it. Three digits of exponent are beyond every float; more would only
# serve to make comparing slow.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_WORDS = re.compile(r"(\s+)")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")

SameValue = Callable[[object, object], bool]  # what was returned, what was expected
SameOutput = Callable[[str, str], bool]  # what was printed, what was expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One set of rules by which programs are judged.

    >>> DEFAULT.same_output("5.0", "5"), DEFAULT.same_output("333333333.33", "333333333")
    (True, False)
    """

    name: str
    same_value: SameValue
    same_output: SameOutput
    preamble: str = ""  # what a program may rely on to be imported
    of_functions: str = ""  # the same for the function form, where that differs
    recursion_limit: int | None = None  # None is Python's own

    @property
    def prelude(self) -> str:
        """What runs before a program whose tests are asserts; empty when nothing does."""
        limit = self.recursion_limit
        lines = [self.preamble] if self.preamble else []
        if limit is not None:
            lines.append(f'__import__("sys").setrecursionlimit({limit})')
        return "\n".join(lines)


# ---------------------------------------------------------------- function values


def same_value(value: object, expected: object, tolerance: float = TOLERANCE) -> bool:
    """Return whether `value` is what the JSON value `expected` stands for.

    As JSON knows types: a tuple is a list and keys are strings, but a boolean is no number and an
    integer is no float. Only where a float is expected may an integer stand, and only there is
    there a tolerance (relative or absolute); NaN equals NaN, and an infinity only itself.
    """
    match expected:
        case bool() | None | str() | int():
            return type(value) is type(expected) and value == expected
        case float():
            return type(value) in (int, float) and _close(cast("float", value), expected, tolerance)
        case list():
            wanted = cast("list[object]", expected)
            if not isinstance(value, list | tuple):
                return False
            items = cast("Sequence[object]", value)
            return len(items) == len(wanted) and all(
                same_value(item, other, tolerance)
                for item, other in zip(items, wanted, strict=True)
            )
        case dict():
            wanted = cast("dict[str, object]", expected)
            items = with_json_keys(value)
            return items.keys() == wanted.keys() and all(
                same_value(items[key], wanted[key], tolerance) for key in wanted
            )
        case _:
            return False


def with_json_keys(value: object) -> dict[object, object]:
    """Return a dictionary with the keys that JSON gives it; a key that it has none for stays."""
    if not isinstance(value, dict):
        return {None: value}  # equal to no keys of JSON
    items = cast("dict[object, object]", value)
    return {_json_key(key): item for key, item in items.items()}


def _json_key(key: object) -> object:
    return json.dumps(key) if key is None or isinstance(key, bool | int | float) else key


def _close(value: float, expected: float, tolerance: float) -> bool:
    if not math.isfinite(expected):
        return value == expected or (math.isnan(expected) and math.isnan(value))
    try:
        return abs(value - expected) <= tolerance * max(1.0, abs(expected))
    except OverflowError:  # an integer beyond the range of floats
        return False


# ---------------------------------------------------------------- standard output


def same_output(stdout: str, expected: str, tolerance: float = TOLERANCE) -> bool:
    """Return whether two outputs agree.

    White space around the output and around each line does not count; the number of lines does.
    Within a line white space counts, as it does for LiveCodeBench, unless all of the line is
    numbers. A number that is expected as a whole one is matched exactly, however it is written
    (`5.0` and `5e0` are 5, `4.9999999` is not); one with a decimal point or an exponent within
    `tolerance`, absolute or relative to what is expected. All other text is matched as it is.
    """
    lines, wanted = stdout.strip().split("\n"), expected.strip().split("\n")
    return len(lines) == len(wanted) and all(map(partial(_same_line, tolerance), lines, wanted))


def _same_line(tolerance: float, line: str, wanted: str) -> bool:
    line, wanted = line.strip(), wanted.strip()
    if line == wanted:  # nearly always, and outputs may have millions of lines
        return True
    tokens, wanted_tokens = line.split(), wanted.split()
    if len(tokens) != len(wanted_tokens):
        return False
    if not all(map(_NUMBER.fullmatch, wanted_tokens)) and _gaps(line) != _gaps(wanted):
        return False
    return all(map(partial(_same_token, tolerance), tokens, wanted_tokens))


def _gaps(line: str) -> list[str]:
    return _WORDS.split(line)[1::2]


def _same_token(tolerance: float, token: str, wanted: str) -> bool:
    if token == wanted:
        return True
    if not (_NUMBER.fullmatch(token) and _NUMBER.fullmatch(wanted)):
        return False
    given, right = Decimal(token), Decimal(wanted)
    if given == right:
        return True
    if _WHOLE.fullmatch(wanted):
        return False
    try:
        return abs(given - right) <= Decimal(tolerance) * max(Decimal(1), abs(right))
    except ArithmeticError:  # a number of a million digits
        return False


# ---------------------------------------------------------------- ours


def default_protocol(tolerance: float = TOLERANCE) -> Protocol:
    """Our own rules, with a tolerance for expected numbers that are not whole; 0 is exact.

    Raises:
        UserError: for a tolerance below 0, or none at all.
    """
    if not 0 <= tolerance < 1:
        raise UserError(f"tolerance={tolerance}: must be at least 0 and below 1")
    return Protocol(
        name="default",
        of_functions=PREAMBLE,
        same_value=partial(same_value, tolerance=tolerance),
        same_output=partial(same_output, tolerance=tolerance),
    )


DEFAULT = default_protocol()


# ---------------------------------------------------------------- literals


def same_literal(text: str, expected: str) -> bool:
    """Return whether two texts are the same Python literal, of the same types throughout.

    >>> same_literal("[1,True]", "[1, True]"), same_literal("[1, 1]", "[1, True]")
    (True, False)
    """
    found = _literal(text)
    return found is not None and found == _literal(expected)


def literal_text(value: object) -> str | None:
    """Return the literal that says a value; None where none does, or it is too long for Python.

    >>> literal_text({1: (None, "a")}), literal_text(float("nan"))
    ("{1: (None, 'a')}", None)
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more digits than Python writes; too deep
        return None
    return text if _literal(text) is not None else None


def _literal(text: str) -> str | None:
    """One text for each Python literal, so that types count and the order of a set does not."""
    try:
        return _written(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _written(value: object) -> str:
    match value:
        case list():
            return f"list({', '.join(map(_written, cast('list[object]', value)))})"
        case tuple():
            return f"tuple({', '.join(map(_written, cast('tuple[object, ...]', value)))})"
        case set():
            return f"set({', '.join(sorted(map(_written, cast('set[object]', value))))})"
        case dict():
            pairs = cast("dict[object, object]", value).items()
            return f"dict({', '.join(sorted(f'{_written(k)}: {_written(v)}' for k, v in pairs))})"
        case _:
            return repr(value)
