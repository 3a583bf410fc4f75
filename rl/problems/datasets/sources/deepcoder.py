"""DeepCoder-Preview-Dataset (agentica-org): four subsets with three forms of tests.

`tests` is JSON: a list of {input, output, testtype, metadata.func_name} (lcbv5, codeforces), a list
of {type, input, output, fn_name?} (primeintellect), or {inputs, outputs, fn_name?} (taco).
"""

from __future__ import annotations

from typing import Any, cast

from rl.problems.datasets.cases import Suite, columns_suite, list_suite
from rl.problems.datasets.rows import Row, any_text, as_dict, digest, from_json, problem
from rl.problems.datasets.sources.prime_intellect import without_preamble
from rl.types import Prompt

COLUMNS = ("problem", "tests", "starter_code", "metadata")
SUBSETS = ("lcbv5", "primeintellect", "taco", "codeforces")


def deepcoder(row: Row) -> Prompt | None:
    """One problem; its subset is that of the file, or is known by the form of the tests."""
    question = without_preamble(row.text("problem"))
    starter = row.read_optional("starter_code", any_text, "")
    metadata = row.read_optional("metadata", _metadata, {})
    tests = row.read("tests", from_json)
    if tests is None:
        return None
    suite = row.read("tests", lambda _: _suite(tests, metadata.get("func_name"), starter))
    if suite is None or row.faults:
        return None
    subset = row.subset if row.subset in SUBSETS else _subset(tests)
    return problem(
        id=f"deepcoder-{subset}-{digest(question)}",
        request=suite.request(question, starter),
        tests=suite.tests,
        entry_point=suite.entry_point,
        source=f"deepcoder/{subset}",
        meta={"num_tests": suite.num_tests, "difficulty": metadata.get("difficulty")},
    )


def _suite(tests: object, func_name: object, starter: str) -> Suite:
    if isinstance(tests, dict):
        return columns_suite(cast("dict[str, Any]", tests), starter)
    return list_suite(tests, func_name, starter)


def _subset(tests: Any) -> str:  # noqa: ANN401 - the JSON of the column
    """The subset by the form of tests that made a suite, so they are not empty."""
    if isinstance(tests, dict):
        return "taco"
    case: dict[str, Any] = tests[0]
    if "testtype" in case:
        return "lcbv5"
    return "primeintellect" if "type" in case else "codeforces"


def _metadata(value: object) -> dict[str, Any]:
    return as_dict(from_json(value) or {}) if value != "" else {}
