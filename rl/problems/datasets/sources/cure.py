"""The evaluation sets of CURE (Gen-Verse): one JSON array of problems on standard input each.

Schema as the authors describe it in `data/readme.md` of Gen-Verse/CURE: `question`, lists
`test_input` and `test_output` (private) and `example_input` and `example_output` (public),
`test_time_limit` in seconds. Derived files also have `test_method`: "stdio", or "function" with a
`test_list` of asserts and the code `prefix`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rl.problems.datasets.cases import Suite, stdio_suite
from rl.problems.datasets.requests import function_request
from rl.problems.datasets.rows import (
    Row,
    RuleError,
    any_text,
    digest,
    filled_texts,
    id_text,
    problem,
    texts,
)
from rl.types import Prompt

COLUMNS = (
    "task_id",
    "question",
    "test_input",
    "test_output",
    "example_input",
    "example_output",
    "test_method",
    "test_list",
    "prefix",
    "test_time_limit",
    "difficulty",
)
_METHODS = ("stdio", "stdin", "function")


def cure(source: str) -> Callable[[Row], Prompt | None]:
    """The reader of one of the sets, whose problems are to have `source`."""

    def read(row: Row) -> Prompt | None:
        question = row.text("question")
        method = row.read_optional("test_method", _method, "stdio")
        limit_s = row.read_optional("test_time_limit", _seconds, None)
        examples = _examples(row)
        if method == "function":
            prefix = row.read_optional("prefix", any_text, "")
            asserts = row.read("test_list", filled_texts) or []
            suite = Suite(json.dumps({"assert": asserts, "setup": ""}), None, len(asserts))
            request = function_request(question, "the function that is asked for", prefix)
        else:
            suite = _pairs(row, "test_input", "test_output")
            request = suite.request(question) if suite else ""
        number = row.read_optional("task_id", id_text, "")
        if suite is None or row.faults:
            return None
        return problem(
            id=f"{source}-{number or digest(question)}",
            request=request,
            tests=suite.tests,
            entry_point=None,
            source=source,
            meta={
                "time_limit_s": limit_s,
                "difficulty": row.values.get("difficulty"),
                "examples": examples,
            },
        )

    return read


def _examples(row: Row) -> list[Any]:
    """The public tests, which may be shown or used to choose between answers."""
    if not row.values.get("example_input"):
        return []
    suite = _pairs(row, "example_input", "example_output")
    return json.loads(suite.tests) if suite else []


def _pairs(row: Row, given: str, expected: str) -> Suite | None:
    inputs, outputs = row.read(given, texts), row.read(expected, texts)
    if inputs is None or outputs is None:
        return None
    return row.read(expected if len(inputs) else given, lambda _: stdio_suite(inputs, outputs))


def _method(value: object) -> str:
    if value not in _METHODS:
        raise RuleError(f"must be one of {', '.join(_METHODS)}", value)
    return str(value)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise RuleError("must be a number of seconds above 0", value)
    return value
