"""Whether a program can be trusted to share a process with its tests, by reading its syntax tree.

Tests mean what Python means only where they run: beside the program. There the program could read
what is expected of it, or change what judges it, so only one that has no means to do so is let in.
The rules are a list of what ordinary programs do, not of attacks: modules and their members by
name, the special names that a class may define or ask for, and no way to reach a frame, a module, a
namespace or a code object as a value. What breaks a rule is not refused; it is judged by the strict
path (`reward.sandbox.inside.asserts.strict`), which shares nothing with its tests.

This is the first of three bars. The second is at work while the program runs
(`reward.sandbox.inside.asserts.guard`); the third runs the tests turned round
(`reward.sandbox.inside.asserts.checks`). Standard library only: this is loaded inside the sandbox.

One file: the allow-list is one argument, and a gap between two files would be a hole.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from reward.sandbox.inside.asserts.words import (
    ASKED,
    BOUND_IN_CLASS,
    BOUND_IN_MODULE,
    COMPARISONS,
    DENIED_MEMBERS,
    DENIED_NAMES,
    DENIED_OF,
    FRAMES,
    METACLASSES,
    METHODS,
    MODULES,
    NOT_SIMPLE,
    OPERATORS,
    SIMPLE,
    SPECIAL_NAMES,
    STAR,
    STORED,
)

_CLASS_MAKERS = ("dataclass", "total_ordering")
_KEEP_CLASS = (*_CLASS_MAKERS, "unique", "final", "runtime_checkable")
_SYS_STORED = frozenset({"stdin", "stdout", "stderr"})
_NUM_ARGS = {"type": (1, 1), "getattr": (2, 3), "wraps": (1, 1)}


_JUDGES = sys.stdlib_module_names | {"np", "numpy", "pd", "pandas", "pytest"}
_BUILTINS = frozenset(dir(builtins))


class NotHonestError(Exception):
    """A program breaks a rule; its message says which, for people."""


@dataclass(frozen=True, slots=True)
class TestNames:
    """What tests call things: where a program may not stand in for something else."""

    __test__ = False

    used: frozenset[str]  # every name and member that the tests mention
    taken: frozenset[str]  # names of builtins and modules that the tests judge with
    imports: frozenset[tuple[str, str]]  # names that they import, and what these stand for


def read_program(tree: ast.Module, given: ast.Module, tests: TestNames) -> None:
    """Return if a program is an ordinary one; `given` are imports that it did not make itself.

    Raises NotHonestError, whose text names what the program does and in which line.
    """
    _Reading(tests).read(tree, given)


def is_simple(tree: ast.Module) -> bool:
    """Whether an ordinary program is one of functions over data.

    Without classes, special members, coroutines and modules that hold more than functions and data
    it has nothing to pass a test with but what it returns.
    """
    return not any(map(_is_more, ast.walk(tree)))


def _is_more(node: ast.AST) -> bool:
    match node:
        case ast.ClassDef() | ast.AsyncFunctionDef() | ast.Await() | ast.MatchClass():
            return True
        case ast.Import(names=aliases):
            return any(alias.name not in SIMPLE for alias in aliases)
        case ast.ImportFrom(module=module, names=aliases):
            return module not in SIMPLE or any(a.name in (*NOT_SIMPLE, "*") for a in aliases)
        case ast.Name(id=name):
            return name in NOT_SIMPLE
        case ast.Attribute(attr=name):
            return name in NOT_SIMPLE or _is_special(name)
        case _:
            return False


def names_in_tests(trees: list[ast.Module], program: ast.Module) -> TestNames:
    """What tests mention, and which names they would be judged by that the program redefines."""
    defined = {name for node in program.body for name in _bound_by(node)}
    used: set[str] = set()
    taken: set[str] = set()
    imports = frozenset(
        pair for tree in trees for node in ast.walk(tree) for pair in _imports(node)
    )
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name):
                    used.add(name)
                case ast.Attribute(attr=name):
                    used.add(name)
                case ast.ImportFrom(names=aliases):
                    used.update(alias.name for alias in aliases)
                case _:
                    pass
            taken.update(_judged_by(node, defined))
    if any(map(_takes_everything, trees)):
        taken |= {name for name, source in imports if not _of_program(source)}
        taken |= used & _BUILTINS
    return TestNames(frozenset(used), frozenset(taken), imports)


def _takes_everything(tree: ast.Module) -> bool:
    """Whether `from solution import *` may put a program's names before those of the tests."""
    return any(
        isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
        for node in ast.walk(tree)
    )


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that an import binds, and what each stands for."""
    match node:
        case ast.Import(names=aliases):
            for alias in aliases:
                bound = alias.asname or alias.name.partition(".")[0]
                yield bound, alias.name if alias.asname else bound
        case ast.ImportFrom(module=str(module), names=aliases):
            for alias in aliases:
                yield alias.asname or alias.name, f"{module}.{alias.name}"
        case _:
            pass


def _of_program(source: str) -> bool:
    return source.partition(".")[0] == "solution"


def _judged_by(node: ast.AST, defined: set[str]) -> Iterator[str]:
    """Names through which a value of the program passes on its way to a check."""
    match node:
        case ast.Attribute(value=ast.Name(id=name)) if name in _JUDGES:
            yield name
        case ast.For(iter=turns) | ast.comprehension(iter=turns):  # how often a test asserts
            for part in ast.walk(turns):
                if isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
                    yield from {part.func.id} & _BUILTINS
        case ast.Name(id=name) if isinstance(getattr(builtins, name, None), type(Exception)):
            if issubclass(getattr(builtins, name), BaseException):
                yield name
        case ast.Assert():
            yield "AssertionError"
        case ast.Call(func=ast.Name(id=name)) if hasattr(builtins, name):
            inner = (part for arg in node.args for part in ast.walk(arg))
            if any(isinstance(part, ast.Name) and part.id in defined for part in inner):
                yield name
        case _:
            pass


def _bound_by(node: ast.stmt) -> Iterator[str]:
    for part in ast.walk(node):
        match part:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.alias():
                yield (part.asname or part.name).partition(".")[0]
            case _:
                pass


@dataclass(frozen=True, slots=True)
class _Scope:
    """Names that a function binds, and those that it says are the module's."""

    bound: set[str]
    of_module: set[str]


class _Reading(ast.NodeVisitor):
    """One pass over a program."""

    def __init__(self, tests: TestNames) -> None:
        self.tests = tests
        self.modules: dict[str, str] = {}  # bound name -> module
        self.imported: set[str] = set()  # names bound to members of modules
        self.scopes: list[_Scope] = []  # of the functions around
        self.in_class = False
        self.metaclasses: frozenset[str] = frozenset()  # of the program's own, that make no class

    def read(self, tree: ast.Module, given: ast.Module) -> None:
        for node in given.body:
            if isinstance(node, ast.Import):
                self.modules |= {(a.asname or a.name.partition(".")[0]): a.name for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                self.imported |= {alias.asname or alias.name for alias in node.names}
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        self.metaclasses = frozenset(node.name for node in classes if _only_calls(node))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
        for node in tree.body:
            shadowing = set(_bound_at_top(node, self.tests.imports)) & self.tests.taken
            if shadowing:
                raise NotHonestError(f"redefines {min(shadowing)}, which the tests judge with")
        self.visit(tree)

    # ------------------------------------------------------------ imports

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._allow_module(alias.name, node)
                bound = alias.asname or alias.name.partition(".")[0]
                self.modules[bound] = alias.name if alias.asname else bound
            return
        module = node.module or ""
        if node.level:
            raise NotHonestError(f"line {node.lineno}: a relative import")
        self._allow_module(module, node)
        for alias in node.names:
            if alias.name == "*":
                if module not in STAR:
                    raise NotHonestError(f"line {node.lineno}: from {module} import *")
                continue
            bound = alias.asname or alias.name
            if alias.name in _CLASS_MAKERS and bound != alias.name:
                raise NotHonestError(f"line {node.lineno}: {alias.name} under another name")
            if f"{module}.{alias.name}" in MODULES:
                self.modules[bound] = f"{module}.{alias.name}"
                continue
            if alias.name not in METACLASSES:
                self._allow_member(module, alias.name, node)
            self.imported.add(bound)

    def _allow_module(self, name: str, node: ast.stmt) -> None:
        if name not in MODULES:
            raise NotHonestError(f"line {node.lineno}: imports {name}")

    def _allow_member(self, module: str, name: str, node: ast.AST) -> None:
        members = MODULES.get(module, frozenset())
        if members is not None:
            allowed = name in members
        else:
            denied = DENIED_OF.get(module, frozenset())
            allowed = name not in denied | DENIED_MEMBERS and not name.startswith("_")
            allowed = (allowed and not name.endswith("Meta")) or name == "__version__"
        if not allowed or _is_module_of(module, name):
            raise NotHonestError(f"line {getattr(node, 'lineno', 0)}: {module}.{name}")

    # ------------------------------------------------------------ the tree

    def _is_module(self, name: str) -> bool:
        return name in self.modules and not self._is_local(name)

    def _is_local(self, name: str) -> bool:
        """Whether a function around binds the name, to no module."""
        for scope in reversed(self.scopes):
            if name in scope.of_module:
                return False
            if name in scope.bound:
                return True
        return False

    def _module_of(self, node: ast.expr) -> str | None:
        """The module that an expression stands for, if it is one."""
        match node:
            case ast.Name(id=name) if self._is_module(name):
                return self.modules[name]
            case ast.Attribute(value=value, attr=name):
                parent = self._module_of(value)
                whole = f"{parent}.{name}"
                return whole if parent is not None and whole in MODULES else None
            case _:
                return None

    def visit_Name(self, node: ast.Name) -> None:
        name = node.id
        if name in DENIED_NAMES and not self._is_local(name):
            raise NotHonestError(f"line {node.lineno}: {name}")
        if isinstance(node.ctx, ast.Load):
            if self._is_module(name):
                raise NotHonestError(f"line {node.lineno}: the module {name} as a value")
            if name in _CLASS_MAKERS and name in self.imported:
                raise NotHonestError(f"line {node.lineno}: {name} as a value")
            if name == "type" or name in METACLASSES or name in self.metaclasses:
                raise NotHonestError(f"line {node.lineno}: {name} as a value")
            if _is_special(name) and name not in SPECIAL_NAMES:
                raise NotHonestError(f"line {node.lineno}: {name}")
        elif self._is_bound_oddly(name):
            raise NotHonestError(f"line {node.lineno}: {name} is assigned")

    def _is_bound_oddly(self, name: str) -> bool:
        if self.in_class and name in COMPARISONS:
            return True
        return _is_special(name) and name not in (
            BOUND_IN_CLASS if self.in_class else BOUND_IN_MODULE
        )

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._check_attribute(node)
        if self._module_of(node) is not None:
            raise NotHonestError(f"line {node.lineno}: the module {ast.unparse(node)} as a value")
        self._visit_base(node.value)

    def _visit_base(self, node: ast.expr) -> None:
        """Visit what a member is asked of: a module may stand there."""
        if self._module_of(node) is None:
            self.visit(node)
        elif isinstance(node, ast.Attribute):
            self._check_attribute(node)
            self._visit_base(node.value)

    def _check_attribute(self, node: ast.Attribute) -> None:
        name, module = node.attr, self._module_of(node.value)
        stored = not isinstance(node.ctx, ast.Load)
        if module is not None:
            if name in _CLASS_MAKERS:
                raise NotHonestError(f"line {node.lineno}: {name} as a value")
            if f"{module}.{name}" not in MODULES:
                self._allow_member(module, name, node)
            if stored and not (module == "sys" and name in _SYS_STORED):
                raise NotHonestError(f"line {node.lineno}: {module}.{name} is assigned")
            return
        self._allow_name(name, node)
        if name in ("format", "format_map") and isinstance(node.value, ast.Constant):
            for member in re.findall(r"\.(\w+)", str(node.value.value)):
                self._allow_name(member, node)
        if name in METACLASSES:
            raise NotHonestError(f"line {node.lineno}: {name} as a value")
        if stored and _is_special(name) and name not in STORED:
            raise NotHonestError(f"line {node.lineno}: {name} is assigned")
        base = node.value
        if stored and isinstance(base, ast.Name) and base.id in self.imported:
            raise NotHonestError(f"line {node.lineno}: {base.id}.{name} is assigned")

    def _allow_name(self, name: str, node: ast.AST) -> None:
        if name in DENIED_MEMBERS or (_is_special(name) and name not in ASKED):
            raise NotHonestError(f"line {getattr(node, 'lineno', 0)}: asks for {name}")

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if isinstance(node.func, ast.Attribute):
            name = node.func.attr if self._module_of(node.func.value) is not None else None
        if name in _NUM_ARGS:
            low, high = _NUM_ARGS[name]
            plain = not node.keywords and not any(isinstance(a, ast.Starred) for a in node.args)
            if not plain or not low <= len(node.args) <= high:
                raise NotHonestError(f"line {node.lineno}: {name} with other arguments")
        if any(keyword.arg == "eval_str" for keyword in node.keywords):
            raise NotHonestError(f"line {node.lineno}: eval_str")
        if getattr(node.func, "attr", "") == "query":
            self._query(node)
        args: list[ast.AST] = [*node.args, *node.keywords]
        if name in ("attrgetter", "methodcaller"):
            self._constant_members(node)
            self._visit_all(args)
            return
        if name == "type":
            self._visit_all(args)
            return
        if name in ("isinstance", "issubclass", "map"):
            args = [arg for arg in args if not (isinstance(arg, ast.Name) and arg.id == "type")]
        self.visit(node.func)
        self._visit_all(args)

    def _query(self, node: ast.Call) -> None:
        """A query of pandas names variables of frames, of its caller unless it is told others."""
        if any(keyword.arg in ("level", "resolvers", None) for keyword in node.keywords):
            raise NotHonestError(f"line {node.lineno}: a query of other frames")

    def _constant_members(self, node: ast.Call) -> None:
        for arg in node.args:
            if not (isinstance(arg, ast.Constant) and isinstance(arg.value, str)):
                raise NotHonestError(f"line {node.lineno}: members that are computed")
            for name in arg.value.split("."):
                self._allow_name(name, node)
                if name in ("format", "format_map", "query"):
                    raise NotHonestError(f"line {node.lineno}: {name} as a value")

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and any(name in node.value for name in _HIDDEN):
            raise NotHonestError(f"line {node.lineno}: a text that names a frame")

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        for name in node.kwd_attrs:
            self._allow_name(name, node)
        self.generic_visit(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        args = node.args
        if not isinstance(node, ast.Lambda):
            if _is_special(node.name) and not (self.in_class and node.name in METHODS):
                raise NotHonestError(f"line {node.lineno}: defines {node.name}")
            self._visit_all([*node.decorator_list])
            if node.name in OPERATORS and self.in_class:
                self._operator(node)
            self._annotation(node.returns)
        all_args = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        named = [arg for arg in all_args if arg is not None]
        for arg in named:
            self._annotation(arg.annotation)
        self._visit_all([*args.defaults, *(d for d in args.kw_defaults if d is not None)])
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
        bound = {arg.arg for arg in named} | _bound_in(body)
        outer, self.in_class = self.in_class, False
        self.scopes.append(_Scope(bound, _globals_in(body)))
        self._visit_all(body)
        self.scopes.pop()
        self.in_class = outer

    def _operator(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            text = ast.unparse(decorator).rpartition(".")[2]
            if text in ("staticmethod", "classmethod", "property", "singledispatchmethod"):
                raise NotHonestError(f"line {node.lineno}: {node.name} is not a plain method")

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> None:
        self.visit(node.generators[0].iter)  # of the scope around
        self.scopes.append(_Scope({n.id for n in _stored_in([node])}, set()))
        self.generic_visit(node)
        self.scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for keyword in node.keywords:
            value = keyword.value
            name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
            known = name in METACLASSES or name in self.metaclasses
            if keyword.arg is None or (keyword.arg == "metaclass" and not known):
                raise NotHonestError(f"line {node.lineno}: a metaclass")
        self._class_decorators(node)
        self._visit_all([] if node.name in self.metaclasses else node.bases)
        self._visit_all([k.value for k in node.keywords if k.arg != "metaclass"])
        outer, self.in_class = self.in_class, True
        for statement in node.body:
            if not _is_alias(statement):
                self.visit(statement)
        self.in_class = outer

    def _class_decorators(self, node: ast.ClassDef) -> None:
        """What changes a class is given that of the statement, and no other."""
        for at, decorator in enumerate(node.decorator_list):
            made = decorator.func if isinstance(decorator, ast.Call) else decorator
            if ast.unparse(made).rpartition(".")[2] not in _CLASS_MAKERS:
                self.visit(decorator)
                continue
            below = (ast.unparse(d) for d in node.decorator_list[at + 1 :])
            if any(text.partition("(")[0].rpartition(".")[2] not in _KEEP_CLASS for text in below):
                raise NotHonestError(f"line {node.lineno}: {ast.unparse(made)} of another's class")
            if isinstance(decorator, ast.Call):
                if decorator.args:
                    raise NotHonestError(f"line {node.lineno}: {ast.unparse(made)} as a function")
                self._visit_all([*decorator.keywords])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        self._visit_all([node.target, *([] if node.value is None else [node.value])])

    def _annotation(self, node: ast.expr | None) -> None:
        """An annotation names types: nothing in it is called, however it is written."""
        if node is None:
            return
        for part in ast.walk(node):
            if isinstance(part, ast.Call | ast.Lambda | ast.Await):
                raise NotHonestError(f"line {node.lineno}: an annotation that calls")
            if isinstance(part, ast.Attribute):
                self._allow_name(part.attr, part)
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                self._annotation(_parsed(part.value))

    def _bindings(self, node: ast.AST) -> None:
        """What binds a name without an `ast.Name`."""
        names: list[str | None] = []
        match node:
            case ast.alias():
                names = [node.asname]
            case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
                names = [name]
            case ast.MatchMapping(rest=name):
                names = [name]
            case ast.Global(names=found) | ast.Nonlocal(names=found):
                names = [*found]
            case _:
                pass
        for name in names:
            if name is not None and _is_special(name):
                raise NotHonestError(f"line {getattr(node, 'lineno', 0)}: {name} is bound")
        self.generic_visit(node)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function
    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension
    visit_alias = visit_ExceptHandler = visit_MatchAs = visit_MatchStar = _bindings
    visit_MatchMapping = visit_Global = visit_Nonlocal = _bindings


# Texts that hold one of these can ask for a frame where a member is named by a text.
_HIDDEN = tuple(
    name for name in FRAMES if name.partition("_")[0] in ("gi", "cr", "ag", "tb", "f", "co")
)


def _is_module_of(module: str, name: str) -> bool:
    """Whether a member is a module: one that is not listed, and would be a value."""
    if f"{module}.{name}" in MODULES or not module:
        return False
    try:
        return isinstance(getattr(importlib.import_module(module), name, None), ModuleType)
    except Exception:  # noqa: BLE001 - the program will see for itself
        return False


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and len(name) > 4


def _only_calls(node: ast.stmt) -> bool:
    """Whether this is a metaclass that changes how its classes are called, a singleton's say.

    It can only be named after `metaclass=`, so it makes no class but by a statement.
    """
    match node:
        case ast.ClassDef(bases=[ast.Name(id="type")], keywords=[], decorator_list=[]):
            functions = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            names = {function.name for function in functions} - {"__call__"}
            return "mro" not in names and not any(map(_is_special, names))
        case _:
            return False


def _is_alias(node: ast.stmt) -> bool:
    """`__radd__ = __add__` in a class, or `__hash__ = None`."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=value)):
            return {name, value} <= METHODS and (name in OPERATORS) <= (value in OPERATORS)
        case ast.Assign(targets=[ast.Name(id="__hash__")], value=ast.Constant(value=None)):
            return True
        case _:
            return False


def _bound_at_top(node: ast.stmt, known: frozenset[tuple[str, str]]) -> Iterator[str]:
    """Names that a statement of a module binds in it, but for imports under their own names.

    `known` are imports of the tests: what a program imports alike stands for nothing else.
    """
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import() | ast.ImportFrom():
            for name, source in _imports(node):
                own = name == source.rpartition(".")[2] or name in ("np", "pd")
                if not own and (name, source) not in known:
                    yield name
        case _:
            yield from _bound_in([node])


def _stored_in(nodes: Iterable[ast.AST]) -> Iterator[ast.Name]:
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
                yield part


def _globals_in(nodes: Iterable[ast.AST]) -> set[str]:
    parts = (part for node in nodes for part in ast.walk(node))
    return {name for part in parts if isinstance(part, ast.Global) for name in part.names}


def _bound_in(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that a body binds, unless it declares that they are not its own."""
    bound: set[str] = set()
    foreign: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound.add(node.name)
                continue
            case ast.Lambda():
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                bound.add(name)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                foreign.update(names)
            case _:
                pass
        waiting.extend(ast.iter_child_nodes(node))
    return bound - foreign


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # nothing that could ever be evaluated
