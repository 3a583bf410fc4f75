"""CodeContests as DeepMind publishes it (deepmind/code_contests): contests, on standard input.

`public_tests`, `private_tests` and `generated_tests` each hold the lists `input` and `output`;
`source` and `difficulty` are numbers of an enumeration; `time_limit` has `seconds` and `nanos`.
"""

from __future__ import annotations

from typing import Any

from rl.problems.datasets.cases import stdio_suite
from rl.problems.datasets.rows import Row, RuleError, Skipped, as_dict, filled_text, problem, texts
from rl.types import Prompt

_TESTS = ("public_tests", "private_tests", "generated_tests")
_KEPT = ("cf_rating", "cf_tags", "memory_limit_bytes")
COLUMNS = (
    *("name", "description", "source", "difficulty", "time_limit", "input_file", "output_file"),
    *_TESTS,
    *_KEPT,
)
_SOURCES = ("unknown", "codechef", "codeforces", "hackerearth", "codejam", "atcoder", "aizu")
_DIFFICULTIES = (
    *("unknown", "easy", "medium", "hard", "harder", "hardest", "external"),
    *"ABCDEFGHIJKLMNOPQRSTUV",
)


def code_contests(row: Row) -> Prompt | Skipped | None:
    """One problem, unless its programs read or write files by name."""
    name = row.read("name", filled_text)
    question = row.text("description")
    if row.values.get("input_file") or row.values.get("output_file"):
        return Skipped("programs that read or write files by name")
    inputs: list[str] = []
    outputs: list[str] = []
    for column in _TESTS:
        given, expected = row.read_optional(column, _columns, ([], []))
        inputs += given
        outputs += expected
    if name is None or row.faults:
        return None
    suite = row.read(_TESTS[0], lambda _: stdio_suite(inputs, outputs))
    limit_s = row.read_optional("time_limit", _seconds, None)
    if suite is None or row.faults:
        return None
    return problem(
        id=f"deepmind_code_contests-{name}",
        request=suite.request(question),
        tests=suite.tests,
        entry_point=None,
        source="deepmind_code_contests",
        meta={
            "source": _named(row.values.get("source"), _SOURCES),
            "difficulty": _named(row.values.get("difficulty"), _DIFFICULTIES),
            "time_limit_s": limit_s,
            **{column: row.values.get(column) for column in _KEPT},
        },
    )


def _columns(value: object) -> tuple[list[str], list[str]]:
    tests = as_dict(value)
    given, expected = texts(tests.get("input")), texts(tests.get("output"))
    if len(given) != len(expected):
        raise RuleError(
            "input and output must be equally many", f"{len(given)} and {len(expected)}"
        )
    return given, expected


def _seconds(value: object) -> float:
    limit: dict[str, Any] = as_dict(value)
    seconds = (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9
    if seconds <= 0:
        raise RuleError("must be seconds and nanos above 0", value)
    return float(seconds)


def _named(value: object, names: tuple[str, ...]) -> object:
    """The name that a number of an enumeration has; what is no such number stands for itself."""
    known = isinstance(value, int) and 0 <= value < len(names)
    return names[value] if known and isinstance(value, int) else value
