"""KodCode-V1 (KodCode/KodCode-V1): synthetic problems whose tests are a pytest module.

`test` (`test_code` in the SFT set) begins with `from solution import f`; `test_info` lists the
functions that are to be written, and where it is null, what the tests import names them. The module
becomes the setup, and each test function is called by name, so that pytest itself does not run. It
is still imported where a test uses `pytest.raises`.
"""

from __future__ import annotations

import ast
import json
from typing import Any, NamedTuple, cast

from rl.problems.datasets.pytest_calls import NeedsPytestError, calls_of
from rl.problems.datasets.python_code import parsed
from rl.problems.datasets.requests import function_request
from rl.problems.datasets.rows import (
    Row,
    RuleError,
    Skipped,
    as_dict,
    digest,
    filled_text,
    id_text,
    problem,
)
from rl.types import Prompt

_KEPT = ("subset", "style", "question_id", "gpt_pass_percentage", "gpt_pass_trial_num")
COLUMNS = ("question", "test", "test_code", "test_info", "gpt_difficulty", *_KEPT)

_NEEDS_PYTEST = "tests that only pytest can run (fixtures)"


class _Function(NamedTuple):
    name: str
    declaration: str


def kodcode(row: Row) -> Prompt | Skipped | None:
    """One problem, unless its tests need more of pytest than a call by name."""
    question = row.text("question")
    column = row.first_of("test", "test_code")
    code = row.text(column)
    if row.has("test_info"):
        functions = row.read("test_info", _functions)
    else:
        functions = row.read(column, _imported) if code else None
    try:
        calls = row.read(column, _calls) if code else None
    except NeedsPytestError:
        return Skipped(_NEEDS_PYTEST)
    number = row.read_optional("question_id", id_text, "")
    if functions is None or calls is None or row.faults:
        return None
    return problem(
        id=f"kodcode-{number or digest(question)}",
        request=function_request(_with_declarations(question, functions), _named(functions)),
        tests=json.dumps({"assert": calls, "setup": code}),
        entry_point=functions[0].name,
        source="kodcode",
        meta={
            "difficulty": row.values.get("gpt_difficulty"),
            **{name: row.values.get(name) for name in _KEPT},
        },
    )


def _functions(value: object) -> list[_Function]:
    """The functions to write; a list of them, or one alone."""
    items = cast("list[Any]", value) if isinstance(value, list) else [value]
    found: list[_Function] = []
    for item in items:
        info = as_dict(item)
        name = info.get("function_name")
        if not isinstance(name, str) or not name.isidentifier():
            raise RuleError("each entry needs a function_name", info)
        declaration = info.get("function_declaration")
        found.append(_Function(name, declaration.strip() if isinstance(declaration, str) else ""))
    if not found:
        raise RuleError("must name the function that the tests call", items)
    return found


def _imported(value: object) -> list[_Function]:
    """What the tests import from the program: some rows say nowhere else what is to be written."""
    names = [
        alias.name
        for node in ast.walk(parsed(filled_text(value)))
        if isinstance(node, ast.ImportFrom) and node.module == "solution"
        for alias in node.names
        if alias.name != "*"
    ]
    if not names:
        raise RuleError("must import from solution, or test_info must name the functions", value)
    return [_Function(name, "") for name in dict.fromkeys(names)]


def _with_declarations(question: str, functions: list[_Function]) -> str:
    """The statement, followed by the heads of the functions that it does not show itself."""
    heads = [f.declaration for f in functions if f.declaration and f.declaration not in question]
    if not heads:
        return question
    return f"{question.strip()}\n\nThe tests call:\n```python\n{chr(10).join(heads)}\n```"


def _named(functions: list[_Function]) -> str:
    names = ", ".join(f"`{name}`" for name in dict.fromkeys(f.name for f in functions))
    return names if "," in names else f"the function {names}"


def _calls(value: object) -> list[str]:
    """One call for each test of the module, in its order."""
    calls = calls_of(parsed(filled_text(value)))
    if not calls:
        raise RuleError("must define at least one test function", value)
    return calls
