"""The tests of a pytest module as calls, one by one, so that pytest itself does not run.

What is collected is what pytest collects: functions and classes named `test...` and `Test...`, and
every class of `unittest`, whatever its name. What only pytest can supply (fixtures, marks that
depend on the machine) is not imitated: `NeedsPytestError`.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_AROUND_ALL = ("setup_", "teardown_", "setUpModule", "tearDownModule")
_AROUND_EACH = ("setup_method", "teardown_method")
_AROUND_CLASS = ("setUpClass", "tearDownClass")
_OTHERS_AROUND = ("setup_", "teardown_")

Method = ast.FunctionDef | ast.AsyncFunctionDef
Decorated = Method | ast.ClassDef


class NeedsPytestError(Exception):
    """A test takes arguments, or is surrounded by functions, that pytest alone would supply."""


class _Axis(NamedTuple):
    names: list[str]
    choices: list[str]  # `a=1, b=2`


def calls_of(module: ast.Module) -> list[str]:
    """One call for each test, in the order of the module; none where there is no test.

    Raises NeedsPytestError where a test needs more than a call, or where all of them are skipped.

    >>> calls_of(ast.parse("def test_a(): pass"))
    ['test_a()']
    """
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    calls: list[str] = []
    is_skipped = False
    for node in module.body:
        if not isinstance(node, Decorated):
            continue
        if node.name.startswith(_AROUND_ALL) or _has(node, "autouse"):
            raise NeedsPytestError
        found = list(_calls(node, classes))
        if found and _skips(node):
            is_skipped = True
        else:
            calls += found
    if is_skipped and not calls:
        raise NeedsPytestError
    return calls


def _calls(node: Decorated, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    if isinstance(node, ast.ClassDef):
        methods = _methods(node, classes)
        if _is_test_case(node, classes):
            yield from _unittest_calls(node, methods)
        elif node.name.startswith("Test") and "__init__" not in methods:
            yield from _class_calls(node, methods)
    elif node.name.startswith("test"):
        if isinstance(node, ast.AsyncFunctionDef):
            raise NeedsPytestError
        for args in _arguments(node, 0):
            yield f"{node.name}({args})"


def _methods(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, Method]:
    """The methods of a class by name, those of its parents in the module among them."""
    found: dict[str, Method] = {}
    for parent in reversed(_parents(node, classes)):
        found |= _methods(parent, classes)
    return found | {item.name: item for item in node.body if isinstance(item, Method)}


def _parents(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """The parents that the module itself defines, above the class."""
    names = [base.id for base in node.bases if isinstance(base, ast.Name)]
    return [
        classes[name] for name in names if name in classes and classes[name].lineno < node.lineno
    ]


def _is_test_case(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    return any(ast.unparse(base).endswith("TestCase") for base in node.bases) or any(
        _is_test_case(parent, classes) for parent in _parents(node, classes)
    )


def _unittest_calls(node: ast.ClassDef, methods: dict[str, Method]) -> Iterator[str]:
    tests = [method for name, method in methods.items() if name.startswith("test")]
    run = [method for method in tests if not _skips(method)]
    if tests and not run:
        raise NeedsPytestError
    before, after = ([name] if name in methods and run else [] for name in _AROUND_CLASS)
    yield from (f"{node.name}.{name}()" for name in before)
    yield from (f"{node.name}({method.name!r}).debug()" for method in run)
    yield from (f"{node.name}.{name}()" for name in after)


def _class_calls(node: ast.ClassDef, methods: dict[str, Method]) -> Iterator[str]:
    around = [name for name in methods if name.startswith(_OTHERS_AROUND)]
    if set(around) - set(_AROUND_EACH) or any(_has(m, "autouse") for m in methods.values()):
        raise NeedsPytestError
    for name, method in methods.items():
        if not name.startswith("test") or _skips(method):
            continue
        if isinstance(method, ast.AsyncFunctionDef):
            raise NeedsPytestError
        for args in _arguments(method, 1):
            call = f"{name}({args})"
            if not around:
                yield f"{node.name}().{call}"
                continue
            before, after = (_around(methods.get(each), name) for each in _AROUND_EACH)
            yield f"(lambda test: ({before}test.{call}, {after}))({node.name}())"


def _around(method: Method | None, test: str) -> str:
    """The call of `setup_method` or `teardown_method`, which may ask for the test's method."""
    if method is None:
        return ""
    return f"test.{method.name}({f'test.{test}' if len(method.args.args) > 1 else ''}), "


# ---------------------------------------------------------------- decorators


def _has(node: Decorated, *words: str) -> bool:
    return any(word in text for text in _decorators(node) for word in words)


def _decorators(node: Decorated) -> Iterable[str]:
    return map(ast.unparse, node.decorator_list)


def _skips(node: Decorated) -> bool:
    """Whether a test never runs. Raises NeedsPytestError where that depends on the machine."""
    if _has(node, ".mark.xfail", "mark.skipif", "skipIf", "skipUnless", "expectedFailure"):
        raise NeedsPytestError
    return any(
        text.partition("(")[0].endswith((".mark.skip", "unittest.skip"))
        for text in _decorators(node)
    )


def _arguments(node: ast.FunctionDef, num_bound: int) -> Iterator[str]:
    """The argument lists of a test: one empty list, or those of its `parametrize` decorators."""
    args = node.args
    num_bound += sum(map(_is_patch, node.decorator_list))
    num_free = len(args.posonlyargs + args.args) - num_bound - len(args.defaults)
    num_free += sum(default is None for default in args.kw_defaults)
    axes = [axis for item in node.decorator_list if (axis := _axis(item)) is not None]
    if num_free != sum(len(axis.names) for axis in axes):
        raise NeedsPytestError
    for chosen in itertools.product(*(axis.choices for axis in axes)):
        yield ", ".join(chosen)


def _is_patch(decorator: ast.expr) -> bool:
    """Whether a decorator of `unittest.mock` hands its mock to the test."""
    if not isinstance(decorator, ast.Call):
        return False
    name = ast.unparse(decorator.func)
    num_named = 2 if name.endswith("patch.object") else 1
    has_new = len(decorator.args) > num_named or any(key.arg == "new" for key in decorator.keywords)
    return name.split(".")[-1] == "patch" or name.endswith("patch.object") if not has_new else False


def _axis(decorator: ast.expr) -> _Axis | None:
    """The choices of `@pytest.mark.parametrize("a, b", [(1, 2), ...])`, as `a=1, b=2`."""
    if not isinstance(decorator, ast.Call) or not ast.unparse(decorator.func).endswith(
        "mark.parametrize"
    ):
        return None
    if len(decorator.args) < 2 or not isinstance(decorator.args[1], (ast.List, ast.Tuple)):
        raise NeedsPytestError
    names, is_one_bare = _parameter_names(decorator.args[0])
    choices: list[str] = []
    for choice in decorator.args[1].elts:
        values = _choice(choice, is_one_bare=is_one_bare)
        if len(values) != len(names):
            raise NeedsPytestError
        pairs = zip(names, values, strict=True)
        choices.append(", ".join(f"{name}={ast.unparse(value)}" for name, value in pairs))
    return _Axis(names, choices)


def _choice(choice: ast.expr, *, is_one_bare: bool) -> list[ast.expr]:
    """The values of one line of `parametrize`; `pytest.param` may name it, and no more."""
    if isinstance(choice, ast.Call) and ast.unparse(choice.func).endswith("pytest.param"):
        if any(key.arg != "id" for key in choice.keywords):
            raise NeedsPytestError
        return choice.args
    if is_one_bare:
        return [choice]
    return choice.elts if isinstance(choice, (ast.Tuple, ast.List)) else []


def _parameter_names(node: ast.expr) -> tuple[list[str], bool]:
    """The names, and whether it is one in a text: only then a choice is the bare value."""
    try:
        value: Any = ast.literal_eval(node)
    except ValueError as error:
        raise NeedsPytestError from error
    if isinstance(value, str):
        names = [name.strip() for name in value.split(",") if name.strip()]
        return names, len(names) == 1
    return [str(name) for name in value], False
