"""Tests as they are run beside a program: each assert says what it compared.

An `assert` raises as ever, with a message that holds both sides. The same tests can be turned
round: an expected literal becomes another one, any other condition its opposite, an expected
exception one that nothing raises. A right program fails every test that is turned round; one that
passes decides the outcome by other means than its answers.
Standard library only: this is loaded inside the sandbox.
"""

from __future__ import annotations

import ast
import functools
import operator
import re
import reprlib
import sys
import types
from collections.abc import Callable
from typing import Any, cast

PROGRAM_FILE = "solution.py"
CHECKS = "__checks__"  # what rewritten tests call
_CHARS = 200
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
# Checks whose last literal can be another one, so that they must fail.
_EXPECTING = frozenset(
    [
        *("assertEqual", "assertEquals", "assertListEqual", "assertDictEqual", "assertTupleEqual"),
        *("assertSetEqual", "assertMultiLineEqual", "assertSequenceEqual", "assertCountEqual"),
        *("assert_equal", "assert_array_equal", "assert_allclose", "assert_almost_equal"),
        *("assert_array_almost_equal", "assert_frame_equal", "assert_series_equal"),
        *("assert_called_with", "assert_called_once_with", "allclose", "isclose", "array_equal"),
    ]
)
_VALUES = frozenset(
    [
        *("set", "list", "tuple", "dict", "frozenset", "complex", "bytes", "str", "repr", "range"),
        *("sorted", "deque", "defaultdict", "array", "approx", "date", "datetime", "timedelta"),
    ]
)
_RAISES = frozenset({"raises", "assertRaises", "assertRaisesRegex"})
_TURNED = {
    "assertEqual": "assertNotEqual",
    "assertListEqual": "assertNotEqual",
    "assertDictEqual": "assertNotEqual",
    "assertTupleEqual": "assertNotEqual",
    "assertSetEqual": "assertNotEqual",
    "assertMultiLineEqual": "assertNotEqual",
    "assertTrue": "assertFalse",
    "assertIn": "assertNotIn",
    "assertIs": "assertIsNot",
    "assertIsNone": "assertIsNotNone",
    "assertIsInstance": "assertNotIsInstance",
    "assertAlmostEqual": "assertNotAlmostEqual",
    "assertGreater": "assertLessEqual",
    "assertGreaterEqual": "assertLess",
    "assertRegex": "assertNotRegex",
}
_OPPOSITES = _TURNED | {there: here for here, there in reversed(_TURNED.items())}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _CHARS
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 20


class NeverRaisedError(Exception):
    """What a test that is turned round expects."""


class Checks:
    """What the asserts of rewritten tests ask."""

    def __init__(self) -> None:
        self.num_made = 0  # checks that the current test has come to
        self.num_false = 0  # those of them that did not hold
        self.num_inside = 0  # those of these that the program called, and may have caught
        self.failure = ""  # the last of these, for people
        self.in_loops = False  # whether the current test has none but in loops
        self._sources: list[tuple[str, Callable[[Any, Any], Any] | None, bool]] = []

    def begin(self) -> None:
        """Forget the checks of the test before."""
        self.num_made = self.num_false = self.num_inside = 0
        self.failure = ""

    def add(self, source: str, compare: Callable[[Any, Any], Any] | None, opposite: bool) -> int:
        """Remember an assert; its number stands in the rewritten test."""
        self._sources.append((source, compare, opposite))
        return len(self._sources) - 1

    def compare(self, number: int, left: Any, right: Any) -> bool:  # noqa: ANN401
        """Whether the assert of that number holds, for its two sides."""
        source, compare, opposite = self._sources[number]
        assert compare is not None
        self.num_made += 1
        holds = bool(compare(left, right)) is not opposite
        if not holds:
            self._fail(source, f": {_shown(left)} and {_shown(right)}")
        return holds

    def truth(self, number: int, value: Any) -> bool:  # noqa: ANN401
        """Whether the assert of that number holds, for its value."""
        source, _, opposite = self._sources[number]
        self.num_made += 1
        holds = bool(value) is not opposite
        if not holds:
            self._fail(source, f": {_shown(value)}")
        return holds

    def made(self, method: Any) -> Any:  # noqa: ANN401
        """A method of a test case, or a function, which is a check when it is called."""
        self.num_made += 1

        @functools.wraps(method)
        def checked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            try:
                return method(*args, **kwargs)
            except AssertionError as error:
                self._fail(str(error), "")
                raise

        return checked

    def never(self, _: object) -> type[Exception]:
        """The exception that a test expects when it is turned round."""
        self.num_made += 1
        return NeverRaisedError

    def _fail(self, source: str, sides: str) -> None:
        self.num_false += 1
        self.num_inside += _is_inside()
        self.failure = f"{source[:_CHARS]} does not hold{sides}" if sides else source


def _is_inside() -> bool:
    """Whether code of the program is among those that wait for the check."""
    frame: types.FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if frame.f_code.co_filename == PROGRAM_FILE:
            return True
        frame = frame.f_back
    return False


def _shown(value: object) -> str:
    try:
        return _SHORT.repr(value)
    except Exception:  # noqa: BLE001 - the program's own `__repr__`
        return f"a {type(value).__name__}"


class _Rewriting(ast.NodeTransformer):
    """Puts `Checks` into the asserts of tests."""

    def __init__(self, checks: Checks, *, opposite: bool) -> None:
        self._checks = checks
        self._opposite = opposite

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        source = ast.unparse(ast.Assert(test=node.test, msg=None))
        self.generic_visit(node)
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            call = self._comparison(source, test)
        else:
            another = self._opposite and isinstance(test, ast.Call) and _expect_another(test)
            number = self._checks.add(source, None, self._opposite and not another)
            call = _call("truth", ast.Constant(number), test)
        failure = ast.Attribute(ast.Name(CHECKS, ast.Load()), "failure", ast.Load())
        error = ast.Call(ast.Name("AssertionError", ast.Load()), [node.msg or failure], [])
        refused = ast.If(ast.UnaryOp(ast.Not(), call), [ast.Raise(error)], [])
        return ast.fix_missing_locations(ast.copy_location(refused, node))

    def _comparison(self, source: str, test: ast.Compare) -> ast.Call:
        left, right = test.left, test.comparators[0]
        opposite = self._opposite
        if opposite and isinstance(test.ops[0], ast.Eq):
            other = _another(right), _another(left)
            if other[0] is not None and other[1] is None:
                right, opposite = other[0], False
            elif other[1] is not None and other[0] is None:
                left, opposite = other[1], False
        number = self._checks.add(source, _COMPARE[type(test.ops[0])], opposite)
        return _call("compare", ast.Constant(number), left, right)

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if not self._opposite:
            if _is_check(node):
                node.func = _call("made", node.func)
            return ast.fix_missing_locations(node)
        name = _name_of(node)
        if name in _RAISES and node.args:
            node.args[0] = _call("never", node.args[0])
        elif name.startswith("assert") and _expect_another(node):
            node.func = _call("made", node.func)
        elif name in _OPPOSITES and isinstance(node.func, ast.Attribute):
            node.func.attr = _OPPOSITES[name]
            node.func = _call("made", node.func)
        return ast.fix_missing_locations(node)


def _call(method: str, *args: ast.expr) -> ast.Call:
    function = ast.Attribute(ast.Name(CHECKS, ast.Load()), method, ast.Load())
    return ast.Call(function, [*args], [])


def _name_of(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _is_check(node: ast.Call) -> bool:
    return re.match("assert(_|[A-Z])", _name_of(node)) is not None and "aises" not in _name_of(node)


def _expect_another(node: ast.Call) -> bool:
    """Change the last value that a check of equality is given; False where there is none."""
    if _name_of(node) not in _EXPECTING:
        return False
    for at in reversed(range(min(len(node.args), 2))):
        holds_some = any(isinstance(part, ast.Constant) for part in ast.walk(node.args[at]))
        # Arrays that hold nothing are near to any.
        if holds_some and (other := _another(node.args[at])) is not None:
            node.args[at] = other
            return True
    return False


def _another(node: ast.expr) -> ast.expr | None:
    """A value that differs from this one in all that is written; None where nothing is."""
    if isinstance(node, ast.Call):
        return _another_call(node)
    if isinstance(node, ast.List | ast.Tuple) and node.elts and not _is_literal(node):
        others = [_another(item) for item in node.elts]
        if any(other is None for other in others):
            return None
        return type(node)([other for other in others if other is not None], ast.Load())
    try:
        value = ast.literal_eval(node)
        other = _changed(value)
        return ast.parse(repr(other), mode="eval").body if other != value else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _another_call(node: ast.Call) -> ast.Call | None:
    """An object that is made from other values: all of them, as a class may compare by one only."""
    name = _name_of(node)
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    if not given or not (name[:1].isupper() or name in _VALUES):
        return None
    if any(isinstance(arg, ast.Starred) for arg in given):
        return None
    others = (
        [_another(arg) for arg in given[:1]] if name == "approx" else list(map(_another, given))
    )
    kept = [arg if other is None else other for arg, other in zip(given, others, strict=False)]
    kept += given[len(kept) :]
    fixed = (arg for arg, other in zip(given, others, strict=False) if other is None)
    if all(other is None for other in others) or not all(map(_is_fixed, fixed)):
        return None
    num = len(node.args)
    keywords = [ast.keyword(k.arg, v) for k, v in zip(node.keywords, kept[num:], strict=True)]
    return ast.Call(node.func, kept[:num], keywords)


def _is_fixed(node: ast.expr) -> bool:
    """Whether nothing that a program does has a part in a value."""
    return not any(isinstance(part, ast.Call) for part in ast.walk(node))


def _changed(value: Any) -> Any:  # noqa: ANN401
    match value:
        case bool():
            return not value
        case int() | float() | complex():
            return value + 1 if value + 1 != value else 0
        case str():
            return value + "x"
        case bytes():
            return value + b"x"
        case None:
            return 0
        case _:
            return _changed_inside(value)


def _changed_inside(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        key = next(reversed(items), None)
        return {**items, key: _changed(items.get(key))}
    if isinstance(value, set):
        return cast("set[Any]", value) | {"x"}
    if not isinstance(value, list | tuple):
        return value
    parts = cast("list[Any] | tuple[Any, ...]", value)
    changed = [*parts[:-1], _changed(parts[-1]) if parts else 0]
    return changed if isinstance(value, list) else tuple(changed)


def is_failure(error: BaseException) -> bool:
    """Whether a test says by this that it failed: an assert, or pytest's word for it."""
    kinds = type(error).__mro__
    return isinstance(error, AssertionError) or any(k.__name__ == "OutcomeException" for k in kinds)


def rewritten(tree: ast.Module, checks: Checks, *, opposite: bool) -> ast.Module:
    """Tests whose asserts ask `checks`; with `opposite`, turned round."""
    return ast.fix_missing_locations(_Rewriting(checks, opposite=opposite).visit(tree))


def as_asserts(tree: ast.Module) -> ast.Module:
    """Statements of a list of asserts: an expression of its own has to hold, too.

    A call, such as `check(f)`, makes checks of its own; all it must not do is to return False.
    """
    for index, statement in enumerate(tree.body):
        match statement:
            case ast.Expr(value=ast.Call() as call):
                failed = ast.Compare(call, [ast.Is()], [ast.Constant(value=False)])
                error = ast.Name("AssertionError", ast.Load())
                replaced: ast.stmt = ast.If(failed, [ast.Raise(error)], [])
            case ast.Expr(value=value):
                replaced = ast.Assert(test=value)
            case _:
                continue
        tree.body[index] = ast.copy_location(replaced, statement)
    return ast.fix_missing_locations(tree)


def asserts_in_loops(part: ast.Module, setup: ast.Module) -> bool:
    """Whether a test asserts in loops and nowhere else, and expects no error."""
    called = {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}
    bodies: list[ast.stmt] = [*part.body]
    for node in setup.body:
        if isinstance(node, ast.FunctionDef) and node.name in called:
            bodies += node.body
    loops = [node for node in bodies if isinstance(node, ast.For)]
    nodes = [node for body in bodies for node in ast.walk(body)]
    kinds = (ast.Try, ast.With, ast.While, ast.FunctionDef, ast.Return)
    in_loops = any(CHECKS in ast.unparse(loop) for loop in loops)
    return in_loops and not any(isinstance(node, kinds) for node in nodes)
