"""MBPP (google-research): `mbpp.jsonl` has `text`, `sanitized-mbpp.json` has `prompt`.

MBPP+ as it lies on the hub (evalplus/mbppplus) is the sanitized form with a column `test`: a module
with many more inputs, and a loop at its end that compares a result with each.
"""

from __future__ import annotations

import ast
import json
from typing import Any

from rl.problems.datasets.python_code import parsed, source_of
from rl.problems.datasets.requests import mbpp_request
from rl.problems.datasets.rows import Row, any_text, filled_texts, id_text, problem, texts
from rl.types import Prompt

COLUMNS = (
    *("task_id", "text", "prompt", "code", "test_list", "test_setup_code", "test_imports", "test"),
    "base_input",
)
_RUNS = (ast.For, ast.While, ast.Expr, ast.Assert, ast.If, ast.With)
# Seconds that the canonical solution takes for the added tests, which are one loop, where they are
# more than 1.5; it gets four times as much, as EvalPlus gives it. 255 takes 2.2 GiB of memory, too.
_SLOW_S = {"123": 2.3, "255": 5.0, "271": 2.9, "392": 4.2, "592": 1.9, "599": 20.5, "603": 2.4}
_OWN_FILE = (
    "is the form of evalplus's own file, whose expected values its package computes; take "
    "evalplus/mbppplus of the hub, where `test` has them"
)


def mbpp(row: Row) -> Prompt | None:
    """One problem: the request shows its first assert, the tests have all of them."""
    task_id = row.read("task_id", id_text)
    text = row.text(row.first_of("text", "prompt"))
    if row.has("base_input") and not row.has("test_list"):
        row.add_fault("base_input", f"{_OWN_FILE} (task {task_id})")
        return None
    asserts = row.read("test_list", filled_texts)
    setup = row.read_optional("test_setup_code", any_text, "")
    imports = row.read_optional("test_imports", texts, [])
    added = row.read_optional("test", _added, ("", []))
    solution = row.read_optional("code", any_text, "")
    if task_id is None or asserts is None or row.faults:
        return None
    parts = [*imports, setup, added[0]]
    tests: dict[str, Any] = {
        "assert": [*asserts, *added[1]],
        "setup": "\n".join(filter(None, parts)).strip("\n"),
    }
    if added[1] and task_id in _SLOW_S:
        tests["time_limit"] = 4 * _SLOW_S[task_id]
    return problem(
        id=f"mbpp-{task_id}",
        request=mbpp_request(text, asserts[0]),
        tests=json.dumps(tests),
        entry_point=None,
        source="mbpp",
        meta={
            "task_id": int(task_id) if task_id.isdecimal() else task_id,
            "variant": "plus" if added[1] else None,
            "solution": solution.replace("\r\n", "\n"),
        },
    )


def _added(value: object) -> tuple[str, list[str]]:
    """The module of added tests: what it defines, and the statements that test."""
    code = any_text(value)
    if not code.strip():
        return "", []
    body = parsed(code).body
    first = next((idx for idx, node in enumerate(body) if _is_test(node)), len(body))
    head, tail = body[:first], body[first:]
    return (
        "\n".join(source_of(code, node) for node in head),
        [source_of(code, node) for node in tail],
    )


def _is_test(node: ast.stmt) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return isinstance(node, _RUNS) and not is_docstring
