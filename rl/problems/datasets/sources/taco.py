"""TACO (BAAI/TACO): contest problems with columns of inputs and outputs."""

from __future__ import annotations

from rl.problems.datasets.cases import columns_suite
from rl.problems.datasets.rows import Row, any_text, digest, from_json, problem
from rl.types import Prompt

_KEPT = ("difficulty", "source", "date", "name", "url", "tags", "skill_types")
_LIMITS = ("time_limit", "memory_limit")
COLUMNS = ("question", "input_output", "starter_code", *_KEPT, *_LIMITS)


def taco(row: Row) -> Prompt | None:
    """One problem: `input_output` is JSON of {inputs, outputs, fn_name?}."""
    question = row.text("question")
    starter = row.read_optional("starter_code", any_text, "")
    suite = row.read("input_output", lambda value: columns_suite(from_json(value), starter))
    if suite is None or row.faults:
        return None
    return problem(
        id=f"taco-{digest(question)}",
        request=suite.request(question, starter),
        tests=suite.tests,
        entry_point=suite.entry_point,
        source="taco",
        meta={name: row.values.get(name) for name in (*_KEPT, *_LIMITS)},
    )
