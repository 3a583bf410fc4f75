"""SYNTHETIC-1 and its code part, verifiable-coding-problems (PrimeIntellect).

`verification_info` is JSON, or in part a Python literal, of {language, test_cases}, or of
{ground_truth}: JSON of the same list. A case is {type, input, output, fn_name?}.
"""

from __future__ import annotations

from typing import Any

from rl.problems.datasets.cases import list_suite
from rl.problems.datasets.rows import (
    Row,
    RuleError,
    Skipped,
    as_dict,
    digest,
    from_json_or_literal,
    id_text,
    problem,
)
from rl.types import Prompt

COLUMNS = (
    "problem_id",
    "source",
    "in_source_id",
    "task_type",
    "prompt",
    "problem_statement",
    "verification_info",
    "metadata",
)
_CODE_TASK = "verifiable_code"
_PREAMBLE = "Solve the following coding problem using the programming language python:"
_KEPT = ("difficulty", "time_limit", "memory_limit", "problem_url")


def prime_intellect(row: Row) -> Prompt | Skipped | None:
    """One problem, unless it is no programming task or not for Python."""
    task_type = row.values.get("task_type") or _CODE_TASK
    if task_type != _CODE_TASK:
        return Skipped(f"task_type {task_type}")
    question = without_preamble(row.text(row.first_of("prompt", "problem_statement")))
    info = row.read("verification_info", lambda value: as_dict(from_json_or_literal(value)))
    if info is None:
        return None
    language = info.get("language") or "python"
    if str(language).lower() not in ("python", "python3"):
        return Skipped(f"tests in {language}")
    suite = row.read("verification_info", lambda _: list_suite(_cases(info)))
    number = row.read_optional("problem_id", id_text, "")
    metadata = row.read_optional("metadata", _metadata, {})
    if suite is None or row.faults:
        return None
    return problem(
        id=f"prime_intellect-{number or digest(question)}",
        request=suite.request(question),
        tests=suite.tests,
        entry_point=suite.entry_point,
        source="prime_intellect",
        meta={
            "source": row.values.get("source"),
            "in_source_id": row.values.get("in_source_id"),
            **{name: metadata.get(name) for name in _KEPT},
        },
    )


def without_preamble(question: str) -> str:
    """The statement without the sentence that all of them begin with: our request says it."""
    return question.strip().removeprefix(_PREAMBLE).strip()


def _cases(info: dict[str, Any]) -> Any:  # noqa: ANN401 - judged by what reads the list
    if info.get("test_cases") is not None:
        return info["test_cases"]
    if info.get("ground_truth") is not None:
        return from_json_or_literal(info["ground_truth"])
    raise RuleError('must have "test_cases" or "ground_truth"', sorted(info))


def _metadata(value: object) -> dict[str, Any]:
    return as_dict(from_json_or_literal(value) or {}) if value != "" else {}
