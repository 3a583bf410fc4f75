"""What watches a program that shares a process with its tests, while it runs.

The program passed the reading of `reward.sandbox.inside.asserts.honest`. Here its namespace gets
builtins that look at what is asked of them, its operators notice when a test calls them, and an
audit hook sees what the interpreter itself reports: frames, collected objects, code, other
processes. Whatever is seen is said at once, for good: what its tests say from then on no longer
counts. Standard library only: this is loaded inside the sandbox.

One file: what is watched is one list, read as a whole when it is judged for holes.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import ast
import builtins
import enum
import functools
import logging
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeGuard, cast

from reward.sandbox.inside.asserts.checks import PROGRAM_FILE
from reward.sandbox.inside.asserts.variants import (
    CHANCE,
    PROGRAM_MODULE,
    Nothing,
    fakes_of,
    is_made_from_nothing,
    variants_of,
)
from reward.sandbox.inside.asserts.words import (
    ASKING,
    COMPARISONS,
    DENIED_MEMBERS,
    OPERATORS,
    special,
    words,
)

TESTS_FILE = "tests.py"

# What rewritten programs call.
_CLASS, _TYPE, _OWNER, _MEMBER = "__class_of__", "__type__", "__owner__", "__member__"
# What libraries do for an ordinary program, too: only the code that does it counts.
_REPORTED_BY_CALLER = words(
    """
    sys._getframe sys._getframemodulename object.__getattr__ object.__setattr__ object.__delattr__
    """
)
_ODD_EVENTS = words(
    """
    gc.get_objects gc.get_referrers gc.get_referents sys._current_frames sys._current_exceptions
    sys.settrace sys.setprofile sys.addaudithook sys.monitoring.register_callback
    ctypes.dlopen ctypes.dlsym ctypes.addressof ctypes.string_at ctypes.cdata ctypes.call_function
    code.__new__ function.__new__ marshal.loads marshal.load pickle.find_class
    os.fork os.forkpty os.exec os.posix_spawn os.system subprocess.Popen os.kill os.killpg
    signal.pthread_kill sqlite3.enable_load_extension sqlite3.load_extension
    """
)
_EVENTS = _ODD_EVENTS | _REPORTED_BY_CALLER | {"open"}
_READABLE_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")


class Watch:
    """What has been seen of one program."""

    def __init__(self, named: frozenset[str], say: Callable[[str], None]) -> None:
        self._named = named  # what the tests mention by name
        self._say = say  # at once: what is said cannot be taken back
        self._said = False
        self._looking = False
        self._auditing = False
        self._guards: set[Any] = set()

    def note(self, what: str) -> None:
        """Say that this program is not to be judged beside its tests."""
        if not self._said:
            self._said = True
            self._say(what)

    # ------------------------------------------------------------ builtins

    def builtins(self) -> dict[str, Any]:
        """The builtins of the program's namespace."""
        plain = {name: value for name, value in vars(builtins).items() if name not in _WITHHELD}
        guarded = (self._getattr, self._setattr, self._delattr)
        plain |= {function.__name__[1:]: function for function in guarded}
        plain |= {_TYPE: self._type_of, _CLASS: self._class, _OWNER: self._owner}
        plain |= {_MEMBER: self._member}
        plain |= {name: _late(name) for name in ("input", "open")}
        return plain

    def _getattr(self, *args: Any) -> Any:  # noqa: ANN401
        self._look_at_member("getattr", *args[:2])
        if len(args) > 1 and args[1] in _LOOKED_AT:
            return self._member(args[0], str(args[1]))
        found: object = getattr(*args)
        if isinstance(found, types.ModuleType):
            self.note("getattr gives a module")
        return found

    def _setattr(self, *args: Any) -> None:  # noqa: ANN401
        self._look_at_member("setattr", *args[:2])
        self._look_at_owner("setattr", *args[:2])
        setattr(*args)

    def _delattr(self, *args: Any) -> None:  # noqa: ANN401
        self._look_at_owner("delattr", *args[:2])
        delattr(*args)

    def _look_at_member(self, what: str, _: object = None, name: object = "") -> None:
        if isinstance(name, str) and str.__str__(name) in DENIED_MEMBERS | _INNER:
            self.note(f"{what} of {name}")
            raise AttributeError(name)

    def _look_at_owner(self, what: str, owner: object = None, name: object = "") -> None:
        special = isinstance(name, str) and str.__str__(name)[:2] == "__"
        foreign = isinstance(owner, type) and not self._is_own(owner)
        if isinstance(owner, types.ModuleType) or foreign or (special and name not in _RENAMED):
            self.note(f"{what} of {name}")
        self._owner(owner, str(name))

    def _owner(self, owner: Any, name: str) -> Any:  # noqa: ANN401
        """What a member is stored in, which has to be the program's own."""
        kind = cast("Any", type(owner))
        if issubclass(kind, _SHARED) and not (issubclass(kind, type) and self._is_own(owner)):
            self.note(f"stores {name} in {getattr(owner, '__name__', kind.__name__)}")
        elif name.startswith(_OF_MOCKS) and _judges(kind):
            self.note(f"stores {name} in a {kind.__name__}")
        return owner

    def _member(self, value: Any, name: str) -> Any:  # noqa: ANN401
        """A member that leads further than it says."""
        if name == "__annotations__":
            return dict(value.__annotations__)
        if name == "__dict__":
            if _judges(cast("Any", type(value))):
                self.note(f"asks for the members of a {type(value).__name__}")
            own: Any = value.__dict__
            if isinstance(value, type):
                noted = {"__annotations__": dict(own.get("__annotations__", {}))}
                return types.MappingProxyType({**own, **noted})
            return own
        if isinstance(value, str):
            return functools.partial(self._formatted, name, value)
        if isinstance(value, type) and issubclass(value, str):
            return functools.partial(self._formatted, name)
        return getattr(cast("Any", value), name)

    def _formatted(self, name: str, text: str, *args: object, **kwargs: object) -> str:
        self._look_at_format(text)
        return getattr(text, name)(*args, **kwargs)

    def _look_at_format(self, text: str) -> None:
        if "__" in text or any(member in text for member in DENIED_MEMBERS & _IN_FORMATS):
            self.note("a format that names a frame")

    def _type_of(self, value: object) -> type:
        found = type(value)
        if issubclass(found, type):
            self.note("asks for the type of a type")
        return found

    # ------------------------------------------------------------ loops of the tests

    def loops(self) -> dict[str, Any]:
        """Builtins for tests, whose loops a StopIteration of the program would silently end."""

        def mapped(call: Any, *others: Any) -> Any:  # noqa: ANN401
            return map(self._steady(call), *others)

        def filtered(call: Any, others: Any) -> Any:  # noqa: ANN401
            return filter(self._steady(call), others)

        def iterated(what: Any, *end: Any) -> Any:  # noqa: ANN401
            return iter(self._steady(what), *end) if end else iter(what)

        return {"map": mapped, "filter": filtered, "iter": iterated}

    def _steady(self, call: Any) -> Any:  # noqa: ANN401
        if not callable(call) or isinstance(call, types.BuiltinFunctionType):
            return call

        def called(*args: Any) -> Any:  # noqa: ANN401
            try:
                return call(*args)
            except StopIteration as stop:
                if any(
                    _file_of(f) == PROGRAM_FILE for f, _ in traceback.walk_tb(stop.__traceback__)
                ):
                    self.note("ends a loop of the tests")
                raise

        return called

    # ------------------------------------------------------------ operators

    def _class(self, kind: Any) -> Any:  # noqa: ANN401
        """A class of the program whose operators notice when a test asks them what it expects.

        Those that it inherits from Python code of a library ask its own methods, too.
        """
        if not isinstance(kind, type) or not self._is_own(kind):
            return kind
        for name in OPERATORS | COMPARISONS:
            method = next((vars(c)[name] for c in kind.__mro__ if name in vars(c)), None)
            if name in vars(kind) and not isinstance(method, types.FunctionType):
                if name in OPERATORS and method is not None:
                    self.note(f"{kind.__name__}.{name} is not a plain method")
            elif _is_written(method) and method not in self._guards:
                guarded = self._guard(method, name)
                self._guards.add(guarded)
                type.__setattr__(kind, name, guarded)
        return kind

    def _guard(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A method that notices when a test calls it with what it expects."""

        @functools.wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if len(args) != 2 or self._looking or not self._is_asked_by_tests():
                return method(*args, **kwargs)
            self._looking = True
            try:
                return self._asked(method, name, *args)
            finally:
                self._looking = False

        return guarded

    def _asked(self, method: Callable[..., Any], name: str, owner: Any, other: Any) -> Any:  # noqa: ANN401
        """The answer to a test, among answers to other values: which is which cannot be known.

        The first value is always another one, so that nothing is gained by agreeing with whatever
        comes first; and what is asked again has to be answered alike.
        """
        own = self._is_own(cast("Any", type(other)))
        if name in _IN_PLACE or (own and name not in _EQUALITIES):
            fakes: tuple[object, ...] = ()
        else:
            fakes = variants_of(other) if own else fakes_of(other)
        real = CHANCE.randint(1, len(fakes)) if fakes else 0
        before = [_answer(method, owner, fake) for fake in fakes[:real]]
        result = method(owner, other)
        answers = before + [_answer(method, owner, fake) for fake in fakes[real:]]
        if result is NotImplemented or name in _IN_PLACE:
            return result
        is_yes_or_no = bool(fakes) and isinstance(result, bool)
        if is_yes_or_no and not _is_same(_answer(method, owner, other), result):
            self.note(f"{type(owner).__name__}.{name} answers otherwise when it is asked again")
        if own:
            if name in _EQUALITIES and owner is not other:
                self._look_at_equality(name, owner, other, result, answers)
        else:
            self._look_at_operator(name, owner, other, result, answers)
        return result

    def _is_asked_by_tests(self) -> bool:
        self._auditing = True
        try:
            return _called_by_tests(sys._getframe(2))
        finally:
            self._auditing = False

    def _look_at_equality(
        self, name: str, owner: object, other: object, result: object, answers: list[object]
    ) -> None:
        """Two objects of the program are equal for what they hold, which makes others unequal."""
        if bool(result) is (name == "__ne__"):
            return
        holds_nothing = not answers and not is_made_from_nothing(type(other))
        if holds_nothing or (answers and all(_is_same(answer, result) for answer in answers)):
            self.note(f"{type(owner).__name__}.{name} gives the same for other objects")

    def _look_at_operator(
        self, name: str, owner: object, other: object, result: object, answers: list[object]
    ) -> None:
        """An object that is compared with data must be one that the tests know to be an object."""
        if (name in ASKING or name in COMPARISONS) and not result and name != "__ne__":
            return
        called = type(owner).__name__
        if called not in self._named or not called[:1].isupper():
            self.note(f"{called}.{name} is asked about a value of the tests")
            return
        same = [_is_same(answer, result) for answer in answers]
        by_state = name in _SHIFTS and type(other) in (int, float)
        if name in ASKING or name in COMPARISONS or type(result) in _PLAIN or by_state:
            told_apart = not any(same) if name == "__eq__" else not all(same)
            if not same or not told_apart:
                self.note(f"{called}.{name} gives the same for other values")

    def _is_own(self, kind: type) -> bool:
        """Whether a class is the program's. One that says so of itself wrongly gains nothing."""
        return type.__getattribute__(kind, "__module__") == PROGRAM_MODULE

    # ------------------------------------------------------------ the interpreter

    def start(self) -> None:
        """Watch what the interpreter reports from now on."""
        kind: Any = enum.EnumMeta
        create = kind._create_

        def created(cls: type, name: str, names: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if "__" in repr(names):
                self.note("an enumeration with special members")
            return create(cls, name, names, *args, **kwargs)

        kind._create_ = created
        self._watch_texts()
        sys.addaudithook(self._audit)

    def _watch_texts(self) -> None:
        """Look at texts that libraries read as code: annotations, and formats of log records."""
        make, form = typing.ForwardRef.__init__, logging.StrFormatStyle.format

        def made(this: Any, arg: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            if isinstance(arg, str) and not _is_annotation(arg):
                self.note("an annotation that is not a type")
            make(this, arg, *args, **kwargs)

        def formed(this: Any, record: logging.LogRecord) -> str:  # noqa: ANN401
            self._look_at_format(str(this._fmt))
            return form(this, record)

        patched: list[Any] = [typing.ForwardRef, logging.StrFormatStyle]
        patched[0].__init__, patched[1].format = made, formed

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        # To look at frames is an event of its own.
        if event not in _EVENTS or self._said or self._auditing:
            return
        self._auditing = True
        try:
            self._look_at_event(event, args, sys._getframe(1))
        finally:
            self._auditing = False

    def _look_at_event(self, event: str, args: tuple[Any, ...], frame: types.FrameType) -> None:
        if event == "open":
            if _by_program(frame):
                self._look_at_path(args[0])
        elif event in _REPORTED_BY_CALLER:
            if _file_of(frame) == PROGRAM_FILE:
                self.note(f"{event} {args[1] if len(args) > 1 else ''}".strip())
        elif _by_program(frame) and not _file_of(frame).startswith("<frozen importlib"):
            self.note(event)

    def _look_at_path(self, path: object) -> None:
        if isinstance(path, int):
            self.note("opens a descriptor")
            return
        text = os.path.realpath(os.fsdecode(cast("str", path)))
        if text.startswith(("/proc", "/sys", "/dev")) and text not in _READABLE_DEVICES:
            self.note("opens a file of the system")


_WITHHELD = words("eval exec compile globals locals vars breakpoint memoryview")
_RENAMED = special("name doc qualname wrapped")
_INNER = special(
    """
    globals builtins closure code defaults kwdefaults self func subclasses bases base mro dict
    traceback getattribute reduce reduce_ex loader spec import build_class
    """
)


def _late(name: str) -> Callable[..., Any]:
    """A builtin as it is when it is called: tests put others in their place."""

    def called(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return getattr(builtins, name)(*args, **kwargs)

    return called


_EQUALITIES = ("__eq__", "__ne__", "equals", "equal")
_SHIFTS = ("__add__", "__radd__", "__sub__", "__rsub__")
_IN_PLACE = frozenset(name for name in OPERATORS if name.startswith("__i") and name != "__invert__")
_SHARED = (type, types.ModuleType)
_LOOKED_AT = ("format", "format_map")
_OF_MOCKS = ("assert", "mock_", "call", "side_effect", "return_value", "method_calls")
_IN_FORMATS = frozenset(n for n in DENIED_MEMBERS if "_" in n) | {"modules"}
_PLAIN = (int, float, str, complex, bool, Decimal, Fraction)
_IN_ANNOTATIONS = (
    *(ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Tuple, ast.List),
    *(ast.BinOp, ast.BitOr, ast.Load, ast.Starred, ast.UnaryOp, ast.USub),
)


def _is_written(method: object) -> TypeGuard[types.FunctionType]:
    """Whether a method is Python code, and none that `dataclass` made."""
    return isinstance(method, types.FunctionType) and method.__code__.co_filename != "<string>"


def _judges(kind: type) -> bool:
    """Whether a class is one that tests judge with."""
    return type.__getattribute__(kind, "__module__").partition(".")[0] in _OF_JUDGES


_OF_JUDGES = ("unittest", "pytest", "_pytest", "mock")


def _is_annotation(text: str) -> bool:
    """Whether a text names a type and does nothing else."""
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True  # nothing that could ever be evaluated
    return all(
        isinstance(node, _IN_ANNOTATIONS)
        and not (isinstance(node, ast.Name) and node.id.startswith("__"))
        and not (isinstance(node, ast.Attribute) and node.attr in DENIED_MEMBERS | _INNER)
        and not (isinstance(node, ast.Attribute) and node.attr.startswith("__"))
        for node in nodes
    )


def _answer(method: Callable[..., Any], owner: object, fake: object) -> object:
    try:
        return method(owner, fake)
    except Exception:  # noqa: BLE001 - the program's own
        return Nothing()


def _is_same(answer: object, result: object) -> bool:
    """Whether two answers say the same; objects do when they hold the same."""
    try:
        if isinstance(result, bool):
            return answer is not NotImplemented and bool(answer) is result
        if type(answer) is not type(result):
            return False
        if isinstance(result, _PLAIN):
            return answer == result
        return answer is result or vars(answer) == vars(result)
    except Exception:  # noqa: BLE001 - the program's own
        return False


def _frames(frame: types.FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield _file_of(frame)
        frame = frame.f_back


def _file_of(frame: types.FrameType) -> str:
    return frame.f_code.co_filename


def _called_by_tests(frame: types.FrameType | None) -> bool:
    """Whether the nearest code that is no library's belongs to the tests."""
    return next((f for f in _frames(frame) if f in (PROGRAM_FILE, TESTS_FILE)), "") == TESTS_FILE


def _by_program(frame: types.FrameType | None) -> bool:
    return next((f for f in _frames(frame) if f in (PROGRAM_FILE, TESTS_FILE)), "") == PROGRAM_FILE


class _Rewriting(ast.NodeTransformer):
    """Puts the watch into a program: around its operators, and where it asks for a type."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        guard = ast.copy_location(ast.Name(_CLASS, ast.Load()), node)
        node.decorator_list = [guard, *node.decorator_list, guard]
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 1:
            node.func = ast.copy_location(ast.Name(_TYPE, ast.Load()), node.func)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load):
            node.value = _call(node, _OWNER, node.value, ast.Constant(node.attr))
            return node
        if node.attr == "__class__":
            return _call(node, _TYPE, node.value)
        if node.attr in (*_LOOKED_AT, "__annotations__", "__dict__"):
            if isinstance(node.value, ast.Constant):  # its text has been read
                return node
            return _call(node, _MEMBER, node.value, ast.Constant(node.attr))
        return node


def _call(node: ast.expr, name: str, *args: ast.expr) -> ast.Call:
    call = ast.Call(ast.Name(name, ast.Load()), [*args], [])
    return ast.fix_missing_locations(ast.copy_location(call, node))


def rewritten(tree: ast.Module) -> ast.Module:
    """A program with the watch in it."""
    return ast.fix_missing_locations(_Rewriting().visit(tree))
