"""HumanEval (`HumanEval.jsonl.gz` of openai/human-eval) and HumanEval+ (`HumanEvalPlus.jsonl`).

HumanEval's `test` defines `check(candidate)`, and so does that of HumanEval+ on the hub. EvalPlus'
own files have inputs, `base_input` and `plus_input`, and say what is right by their
`canonical_solution`; a `test` beside them is HumanEval's own, without what EvalPlus has added.
"""

from __future__ import annotations

import ast
import json
from typing import Any

from rl.problems.datasets.python_code import is_import, parsed, source_of
from rl.problems.datasets.requests import completion_request
from rl.problems.datasets.rows import Row, RuleError, as_list, filled_text, id_text, problem
from rl.types import Prompt

COLUMNS = (
    "task_id",
    "prompt",
    "entry_point",
    "test",
    "canonical_solution",
    "base_input",
    "plus_input",
    "atol",
)

# Runs beside the judge. EvalPlus compares floats with a tolerance, and `find_zero`, which has many
# right answers, by the value of the polynomial at the answer.
_PLUS = """\
import json as _json

_reference = {{}}
exec({solution!r}, _reference)
_inputs = {inputs!r}


def _is_same(value, expected):
    if value == expected:
        return True
    if isinstance(expected, float):
        return isinstance(value, (int, float)) and abs(value - expected) <= (
            {atol!r} + 1e-7 * abs(expected)
        )
    if isinstance(expected, (list, tuple)) and isinstance(value, type(expected)):
        return len(value) == len(expected) and all(map(_is_same, value, expected))
    return False


def check(candidate):
    for args, again in zip(_json.loads(_inputs), _json.loads(_inputs)):
        value = candidate(*args)
        if {entry_point!r} == "find_zero":
            assert abs(_reference["poly"](*again, value)) <= {atol!r}
        else:
            assert _is_same(value, _reference[{entry_point!r}](*again))
"""
_DEFAULT_ATOL = 1e-6  # EvalPlus' own, where the row has 0
# What EvalPlus' canonical solutions take for all inputs, in seconds, where it is above 1.5. A test
# here is the loop over up to a thousand inputs, and gets four times as much, as EvalPlus gives it.
_SLOW_S = {"15": 6.3, "36": 2.6, "59": 3.0, "83": 2.5, "94": 2.3, "130": 2.8, "139": 8.0}


def human_eval(row: Row) -> Prompt | None:
    """One problem: the asserts are one call of `check`.

    `setup` begins with the imports and the helper functions that the prompt gives, so that a test
    that uses them (HumanEval/38) does not depend on whether the answer repeats them.
    """
    task_id = row.read("task_id", id_text) or ""
    prompt = row.text("prompt")
    entry_point = row.read("entry_point", _identifier) or ""
    is_plus = row.has("base_input")
    given = row.read("prompt", lambda value: _given(value, entry_point)) if entry_point else None
    test = _plus(row, prompt, entry_point) if is_plus else row.read("test", _checked)
    if given is None or test is None or row.faults:
        return None
    tests: dict[str, Any] = {
        "assert": [f"check({entry_point})"],
        "setup": f"{given}\n\n{test.strip()}\n".lstrip(),
    }
    slow_s = _SLOW_S.get(task_id.rpartition("/")[2])
    if slow_s is not None and (is_plus or "def assertion(" in test):
        tests["time_limit"] = 4 * slow_s
    return problem(
        id=f"human_eval-{task_id.rpartition('/')[2]}",
        request=completion_request(entry_point, prompt),
        tests=json.dumps(tests),
        entry_point=entry_point,
        source="human_eval",
        meta={"task_id": task_id, "variant": "plus" if is_plus else None},
    )


def _given(value: object, entry_point: str) -> str:
    """Imports, then whatever else stands in the prompt beside the function itself."""
    body = parsed(value).body
    named = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == entry_point]
    if not named:
        raise RuleError(f"must define the entry point {entry_point!r}", value)
    others = [node for node in body if node not in named]
    others.sort(key=lambda node: not is_import(node))
    return "\n".join(source_of(str(value), node) for node in others)


def _checked(value: object) -> str:
    names = [node.name for node in parsed(value).body if isinstance(node, ast.FunctionDef)]
    if "check" not in names:
        raise RuleError("must define the function check(candidate)", value)
    return str(value)


def _plus(row: Row, prompt: str, entry_point: str) -> str | None:
    base = row.read("base_input", _inputs) or []
    inputs = base + row.read_optional("plus_input", _inputs, [])
    solution = row.read("canonical_solution", filled_text)
    atol = row.read_optional("atol", _tolerance, 0.0)
    if solution is None or row.faults:
        return None
    return _PLUS.format(
        solution=prompt + solution,
        inputs=json.dumps(inputs),
        entry_point=entry_point,
        atol=atol or _DEFAULT_ATOL,
    )


def _inputs(value: object) -> list[object]:
    return [as_list(args) for args in as_list(value)]


def _tolerance(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise RuleError("must be a number that is not negative", value)
    return float(value)


def _identifier(value: object) -> str:
    if not isinstance(value, str) or not value.isidentifier():
        raise RuleError("must be the name of a function", value)
    return value
