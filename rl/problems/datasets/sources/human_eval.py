"""HumanEval (`HumanEval.jsonl.gz` of openai/human-eval) and HumanEval+ (`HumanEvalPlus.jsonl`).

HumanEval's `test` defines `check(candidate)`. EvalPlus' own file has inputs instead, `base_input`
and `plus_input`, and says what is right by its `canonical_solution`.
"""

from __future__ import annotations

import ast
import json

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
import copy as _copy
import json as _json

_reference = {{}}
exec({solution!r}, _reference)
_inputs = _json.loads({inputs!r})


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
    for args in _inputs:
        value = candidate(*_copy.deepcopy(args))
        if {entry_point!r} == "find_zero":
            assert abs(_reference["poly"](*_copy.deepcopy(args), value)) <= {atol!r}
        else:
            assert _is_same(value, _reference[{entry_point!r}](*_copy.deepcopy(args)))
"""
_DEFAULT_ATOL = 1e-6  # EvalPlus' own, where the row has 0


def human_eval(row: Row) -> Prompt | None:
    """One problem: the asserts are one call of `check`.

    `setup` begins with the imports and the helper functions that the prompt gives, so that a test
    that uses them (HumanEval/38) does not depend on whether the answer repeats them.
    """
    task_id = row.read("task_id", id_text) or ""
    prompt = row.text("prompt")
    entry_point = row.read("entry_point", _identifier) or ""
    is_plus = not row.has("test") and row.has("base_input")
    given = row.read("prompt", lambda value: _given(value, entry_point)) if entry_point else None
    test = _plus(row, prompt, entry_point) if is_plus else row.read("test", _checked)
    if given is None or test is None or row.faults:
        return None
    tests = {"assert": [f"check({entry_point})"], "setup": f"{given}\n\n{test.strip()}\n".lstrip()}
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
