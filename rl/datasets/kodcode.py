"""KodCode-V1 (KodCode/KodCode-V1): synthetic problems whose tests are a pytest module.

`test` (`test_code` in the SFT set) begins with `from solution import f`; `test_info` lists the
functions that are to be written, and where it is null, what the tests import says so. The module
becomes the setup, and each test function is called by name, so that pytest itself does not run. It
is still imported where a test uses `pytest.raises`.
"""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from rl.datasets.python_code import parsed
from rl.datasets.requests import function_request
from rl.datasets.rows import Row, RuleError, Skipped, as_dict, digest, filled_text, id_text, problem
from rl.types import Prompt

_KEPT = ("subset", "style", "question_id", "gpt_pass_percentage", "gpt_pass_trial_num")
COLUMNS = ("question", "test", "test_code", "test_info", "gpt_difficulty", *_KEPT)

_AROUND = ("setup_", "teardown_")
_NEEDS_PYTEST = "tests that only pytest can run (fixtures)"


class _Function(NamedTuple):
    name: str
    declaration: str


class _Axis(NamedTuple):
    names: list[str]
    choices: list[str]  # `a=1, b=2`


class _NeedsPytestError(Exception):
    """A test takes arguments that pytest alone would give it."""


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
    except _NeedsPytestError:
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
    calls: list[str] = []
    for node in parsed(filled_text(value)).body:
        if isinstance(node, ast.AsyncFunctionDef) or _is_for_pytest(node):
            raise _NeedsPytestError
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            calls += [f"{node.name}({args})" for args in _arguments(node, 0)]
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            calls += _class_calls(node)
    if not calls:
        raise RuleError("must define at least one test function", value)
    return calls


def _is_for_pytest(node: ast.stmt) -> bool:
    """True for what pytest would run around the tests, or for a test that it would not run."""
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return False
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return node.name.startswith(_AROUND) or any(
        "autouse" in text or ".mark.skip" in text or ".mark.xfail" in text for text in decorators
    )


def _class_calls(node: ast.ClassDef) -> list[str]:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    tests = [method for method in methods if method.name.startswith("test")]
    if any(ast.unparse(base).endswith("TestCase") for base in node.bases):
        return [f"{node.name}({test.name!r}).debug()" for test in tests]
    if any(_is_for_pytest(method) for method in methods):
        raise _NeedsPytestError
    return [f"{node.name}().{test.name}({args})" for test in tests for args in _arguments(test, 1)]


def _arguments(node: ast.FunctionDef, num_bound: int) -> Iterator[str]:
    """The argument lists of a test: one empty list, or those of its `parametrize` decorators."""
    args = node.args
    num_free = len(args.posonlyargs + args.args) - num_bound - len(args.defaults)
    num_free += sum(default is None for default in args.kw_defaults)
    axes = [axis for item in node.decorator_list if (axis := _axis(item)) is not None]
    if num_free != sum(len(axis.names) for axis in axes):
        raise _NeedsPytestError
    for chosen in itertools.product(*(axis.choices for axis in axes)):
        yield ", ".join(chosen)


def _axis(decorator: ast.expr) -> _Axis | None:
    """The choices of `@pytest.mark.parametrize("a, b", [(1, 2), ...])`, as `a=1, b=2`."""
    if not isinstance(decorator, ast.Call) or not ast.unparse(decorator.func).endswith(
        "mark.parametrize"
    ):
        return None
    if len(decorator.args) < 2 or not isinstance(decorator.args[1], (ast.List, ast.Tuple)):
        raise _NeedsPytestError
    names, is_one_bare = _parameter_names(decorator.args[0])
    choices: list[str] = []
    for choice in decorator.args[1].elts:
        values = [choice] if is_one_bare else _elements(choice)
        if isinstance(choice, ast.Call) or len(values) != len(names):  # pytest.param(...)
            raise _NeedsPytestError
        pairs = zip(names, values, strict=True)
        choices.append(", ".join(f"{name}={ast.unparse(value)}" for name, value in pairs))
    return _Axis(names, choices)


def _parameter_names(node: ast.expr) -> tuple[list[str], bool]:
    """The names, and whether it is one in a text: only then a choice is the bare value."""
    try:
        value: Any = ast.literal_eval(node)
    except ValueError as error:
        raise _NeedsPytestError from error
    if isinstance(value, str):
        names = [name.strip() for name in value.split(",") if name.strip()]
        return names, len(names) == 1
    return [str(name) for name in value], False


def _elements(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, (ast.Tuple, ast.List)) else []
