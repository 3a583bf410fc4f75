"""LiveCodeBench, `code_generation_lite` (JSON lines; livecodebench/code_generation_lite)."""

from __future__ import annotations

from typing import Any

from rl.problems.datasets.cases import Suite, list_suite
from rl.problems.datasets.pickled import packed_json
from rl.problems.datasets.rows import Row, any_text, as_dict, as_list, from_json, id_text, problem
from rl.types import Prompt

COLUMNS = (
    "question_id",
    "question_title",
    "question_content",
    "starter_code",
    "public_test_cases",
    "private_test_cases",
    "metadata",
    "difficulty",
    "contest_id",
    "contest_date",
    "platform",
)


def live_code_bench(row: Row) -> Prompt | None:
    """One problem; its tests are the public ones, then the private ones."""
    question_id = row.read("question_id", id_text)
    question = row.text("question_content")
    starter = row.read_optional("starter_code", any_text, "")
    metadata = row.read_optional("metadata", _metadata, {})
    public = row.read("public_test_cases", lambda value: as_list(from_json(value)))
    private = row.read("private_test_cases", lambda value: as_list(packed_json(value)))
    if public is None or private is None:
        return None
    suite = _suite(row, public, private, metadata.get("func_name"))
    if suite is None or row.faults:
        return None
    return problem(
        id=f"live_code_bench-{question_id}",
        request=suite.request(question, starter),
        tests=suite.tests,
        entry_point=suite.entry_point,
        source="live_code_bench",
        meta={
            "question_id": question_id,
            "title": row.values.get("question_title"),
            "difficulty": row.values.get("difficulty"),
            "date": row.values.get("contest_date"),
            "platform": row.values.get("platform"),
            "contest_id": row.values.get("contest_id"),
            "num_public_tests": len(public),
        },
    )


def _suite(row: Row, public: list[Any], private: list[Any], func_name: object) -> Suite | None:
    """The joined tests; what is wrong with them is reported for the column that holds it."""
    parts = (("public_test_cases", public), ("private_test_cases", private))
    for column, part in parts:
        if part:
            row.read(column, lambda _, part=part: list_suite(part, func_name))
    if row.faults:
        return None
    return row.read(parts[1][0], lambda _: list_suite(public + private, func_name))


def _metadata(value: object) -> dict[str, Any]:
    return as_dict(from_json(value) or {}) if value != "" else {}
