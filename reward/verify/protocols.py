"""Rules of published graders, so that their figures can be reproduced.

Each is our reading of the grader at the commit that `SOURCES` names, oddities included; what they
do around the program (limits, mocked files, wrapping a script into a function) is not taken over.
docs/evaluation.md says what differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from decimal import Decimal
from typing import Any, cast

from conf.errors import UserError
from conf.schema import ExecutionConfig, ProtocolConfig, SandboxConfig
from reward.verify.comparison import (
    DEFAULT,
    TOLERANCE,
    Protocol,
    default_protocol,
    same_value,
    with_json_keys,
)

# What each was read in.
SOURCES = {
    "livecodebench": "LiveCodeBench/LiveCodeBench 28fef95 lcb_runner/evaluation/testing_util.py",
    "cure": "Gen-Verse/CURE 69fe174 evaluation/eval.py",
    "taco": "FlagOpen/TACO 245eba3 metrics/testing_util.py",
    "evalplus": "evalplus/evalplus 26d6d00 (after 0.3.1) evalplus/eval/__init__.py",
}


def protocol_named(name: str, tolerance: float | None = None) -> Protocol:
    """The rules of a grader; `tolerance` is for ours alone, None is its default.

    Raises:
        UserError: for an unknown name, and for a tolerance of rules that have their own.
    """
    if name == DEFAULT.name:
        return default_protocol(TOLERANCE if tolerance is None else tolerance)
    if name not in PROTOCOLS:
        raise UserError(f"protocol={name}: must be one of {', '.join(PROTOCOLS)}")
    if tolerance is not None:
        raise UserError(
            f"tolerance={tolerance}: protocol={name} compares numbers by a rule of its own; leave "
            "tolerance away, or give protocol=default"
        )
    return PROTOCOLS[name]


def execution_of(sandbox: SandboxConfig, rules: ProtocolConfig) -> ExecutionConfig:
    """How programs are held and judged. Raises UserError where the two keys of `rules` disagree."""
    protocol_named(rules.protocol, rules.tolerance)
    return ExecutionConfig(**asdict(sandbox), protocol=rules.protocol, tolerance=rules.tolerance)


def _equal(value: object, expected: object) -> bool:
    """As Python's `==` has it, where it has an answer; the values are builtin data."""
    try:
        return bool(value == expected)
    except (ArithmeticError, RecursionError):  # a signalling NaN; a value that is nested too deep
        return False


# ---------------------------------------------------------------- LiveCodeBench

_LCB_STARRED = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json"),
)
_LCB_PREAMBLE = "\n".join(
    [f"from {name} import *" for name in (*_LCB_STARRED, "builtins", "typing")]
    + [f"import {name}" for name in _LCB_STARRED]
)


def _lcb_value(value: object, expected: object) -> bool:
    """By `==`, so that a boolean is a number; the outermost tuple is a list, inner ones are not."""
    if isinstance(value, tuple):
        value = list(cast("tuple[object, ...]", value))
    return _equal(value, expected)


def _lcb_output(stdout: str, expected: str) -> bool:
    """Line by line: as text, or else as decimals that are all exactly equal."""
    lines, wanted = stdout.strip().split("\n"), expected.strip().split("\n")
    return len(lines) == len(wanted) and all(map(_lcb_line, lines, wanted))


def _lcb_line(line: str, wanted: str) -> bool:
    if line.strip() == wanted.strip():
        return True
    try:
        return [Decimal(word) for word in line.split()] == [Decimal(w) for w in wanted.split()]
    except ArithmeticError:
        return False


# ---------------------------------------------------------------- CURE


def _cure_output(stdout: str, expected: str) -> bool:
    """The same words in the same order, however they are laid out."""
    return stdout.split() == expected.split()


# ---------------------------------------------------------------- TACO

_TACO_PREAMBLE = """\
import sys, time, itertools, collections, math, fractions, random, heapq
from itertools import accumulate, product, permutations, combinations
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
from typing import List, Tuple
import numpy as np
from heapq import *
stdin, stdout = sys.stdin, sys.stdout"""


def _taco_value(value: object, expected: object) -> bool:
    """By `==` with the result, or with a list that holds it; tuples are lists two levels deep."""
    value = _lists(value, 1)
    wanted = _with_whole_keys(expected)
    deeper = _lists(value, 2)
    return any(_equal(found, e) for found in (value, deeper) for e in (wanted, [wanted]))


def _lists(value: object, depth: int) -> object:
    if depth == 0 or not isinstance(value, list | tuple):
        return value
    return [_lists(item, depth - 1) for item in cast("Sequence[object]", value)]


def _with_whole_keys(expected: object) -> object:
    """A dictionary with the whole numbers for keys that JSON made texts of, where all are."""
    if not isinstance(expected, dict):
        return expected
    try:
        return {int(key): item for key, item in cast("dict[str, object]", expected).items()}
    except ValueError:
        return cast("object", expected)


def _taco_output(stdout: str, expected: str) -> bool:
    """As text without white space around it, or else by sets.

    The grader goes on to compare what a list of lines would have been with a text: each *word* of
    the output as the set of its characters with each *line* that is expected as the set of its
    words, and these sets in any order. Its own figures are made with that.
    """
    if stdout.strip() == expected.strip():
        return True
    lines = [line.strip() for line in expected.split("\n") if line]
    with suppress(ValueError):
        if _all_close([float(c) for c in stdout], [float(line) for line in lines]):
            return True
    words_of_lines = [line.split() for line in lines]
    words = stdout.split()
    if set(map(frozenset, words)) == set(map(frozenset, words_of_lines)):
        return True
    with suppress(ValueError, OverflowError):
        return _rounded(words) == _rounded(words_of_lines)
    return False


def _rounded(parts: Sequence[Sequence[str]]) -> set[frozenset[float]]:
    return {frozenset(round(float(item), 3) for item in part) for part in parts}


def _all_close(values: Sequence[float], expected: Sequence[float]) -> bool:
    """As numpy's `allclose` with its own tolerances."""
    return len(values) == len(expected) and all(map(_taco_close, values, expected))


def _taco_close(value: float, expected: float) -> bool:
    return _within(value, expected, rtol=1e-5, atol=1e-8)


# ---------------------------------------------------------------- evalplus


def _evalplus_value(value: object, expected: object) -> bool:
    """By `==`; a float or a flat list of floats also within 1e-6, of the same type.

    Tuples count as lists here, since what is expected went through JSON.
    """
    value = _as_json(value)
    if _equal(value, expected):
        return True
    if isinstance(expected, float):
        return isinstance(value, float) and _evalplus_close(value, expected)
    if not _is_floats(expected) or not isinstance(value, list):
        return False
    items, wanted = cast("list[Any]", value), cast("list[float]", expected)
    numbers = all(isinstance(item, bool | int | float) for item in items)
    try:
        return numbers and len(items) == len(wanted) and all(map(_evalplus_close, items, wanted))
    except OverflowError:
        return False


def _as_json(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in cast("Sequence[object]", value)]
    if isinstance(value, dict):
        items = with_json_keys(cast("object", value))
        return {key: _as_json(item) for key, item in items.items()}
    return value


def _is_floats(expected: object) -> bool:
    items = cast("list[object]", expected) if isinstance(expected, list) else []
    return bool(items) and all(isinstance(item, float) for item in items)


def _evalplus_close(value: float, expected: float) -> bool:
    return _within(value, expected, rtol=1e-7, atol=1e-6)


def _within(value: float, expected: float, *, rtol: float, atol: float) -> bool:
    if math.isfinite(value) and math.isfinite(expected):
        return abs(value - expected) <= atol + rtol * abs(expected)
    return value == expected


# ---------------------------------------------------------------- all of them

_same: Callable[[str, str], bool] = DEFAULT.same_output

PROTOCOLS: dict[str, Protocol] = {
    "default": DEFAULT,
    "livecodebench": Protocol(
        name="livecodebench",
        same_value=_lcb_value,
        same_output=_lcb_output,
        preamble=_LCB_PREAMBLE,
        recursion_limit=50_000,
    ),
    "cure": Protocol(
        name="cure",
        same_value=same_value,  # it has no functions to call
        same_output=_cure_output,
        preamble="from typing import List, Tuple, Optional",
    ),
    "taco": Protocol(
        name="taco",
        same_value=_taco_value,
        same_output=_taco_output,
        preamble=_TACO_PREAMBLE,
    ),
    "evalplus": Protocol(
        name="evalplus",
        same_value=_evalplus_value,
        same_output=_same,  # it has no programs that print
    ),
}
