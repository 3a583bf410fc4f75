"""Whether a program can be trusted to share a process with its tests, by reading its syntax tree.

Tests mean what Python means only where they run: beside the program. There the program could read
what is expected of it, or change what judges it, so only one that has no means to do so is let in.
The rules are a list of what ordinary programs do, not of attacks: modules and their members by
name, the special names that a class may define or ask for, and no way to reach a frame, a module, a
namespace or a code object as a value. What breaks a rule is not refused; it is judged by the strict
path (`reward.sandbox_asserts`), which shares nothing with its tests.

This is the first of three bars. The second is at work while the program runs
(`reward.sandbox_guard`); the third runs the tests turned round (`reward.sandbox_checks`).
Standard library only: this is loaded inside the sandbox.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

_FRAMES = frozenset(
    [
        "gi_frame",
        "gi_code",
        "gi_yieldfrom",
        "cr_frame",
        "cr_code",
        "cr_await",
        "cr_origin",
        "ag_frame",
        "ag_code",
        "ag_await",
        "tb_frame",
        "tb_next",
        "f_back",
        "f_builtins",
        "f_code",
        "f_globals",
        "f_locals",
        "f_trace",
        "co_consts",
        "co_code",
        "co_names",
        "co_varnames",
        "func_globals",
        "func_code",
        "get_stack",
        "get_coro",
        "get_context",
        "with_traceback",
        "mro",
        "eval_str",
    ]
)
# Members that lead to an interpreter's insides wherever they hang, or run text as a program.
_DEEP = frozenset(
    [
        "sys",
        "_sys",
        "os",
        "_os",
        "builtins",
        "_builtins",
        "modules",
        "gc",
        "inspect",
        "importlib",
        "ctypes",
        "subprocess",
        "marshal",
        "eval",
        "enable_load_extension",
        "load_extension",
        "configure_mock",
        "mock_add_spec",
        "attach_mock",
        "as_strided",
        "stride_tricks",
        "ctypeslib",
    ]
)
DENIED_MEMBERS = _FRAMES | _DEEP

_OPERATORS = [
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "divmod",
    "pow",
    "lshift",
    "rshift",
    "and",
    "xor",
    "or",
    "radd",
    "rsub",
    "rmul",
    "rmatmul",
    "rtruediv",
    "rfloordiv",
    "rmod",
    "rdivmod",
    "rpow",
    "rlshift",
    "rrshift",
    "rand",
    "rxor",
    "ror",
    "iadd",
    "isub",
    "imul",
    "imatmul",
    "itruediv",
    "ifloordiv",
    "imod",
    "ipow",
    "ilshift",
    "irshift",
    "iand",
    "ixor",
    "ior",
    "contains",
]
OPERATORS = frozenset(f"__{name}__" for name in _OPERATORS)
# Methods by which a value that only looks like data could be asked whether it is as expected.
COMPARISONS = frozenset(
    [
        "equals",
        "equal",
        "isclose",
        "allclose",
        "issubset",
        "issuperset",
        "isdisjoint",
        "startswith",
        "endswith",
    ]
)
_METHODS = OPERATORS | frozenset(
    f"__{name}__"
    for name in [
        "init",
        "new",
        "del",
        "repr",
        "str",
        "bytes",
        "format",
        "hash",
        "bool",
        "len",
        "length_hint",
        "getitem",
        "setitem",
        "delitem",
        "missing",
        "iter",
        "reversed",
        "next",
        "call",
        "enter",
        "exit",
        "aenter",
        "aexit",
        "aiter",
        "anext",
        "await",
        "neg",
        "pos",
        "abs",
        "invert",
        "complex",
        "int",
        "float",
        "index",
        "round",
        "trunc",
        "floor",
        "ceil",
        "getattr",
        "getattribute",
        "setattr",
        "delattr",
        "dir",
        "get",
        "set",
        "delete",
        "set_name",
        "init_subclass",
        "class_getitem",
        "copy",
        "deepcopy",
        "post_init",
        "sizeof",
        "fspath",
    ]
)
# Special members that a program may ask a value for.
_ASKED = _METHODS | frozenset(
    f"__{name}__"
    for name in ["name", "qualname", "doc", "class", "module", "annotations", "dict", "version"]
)
_BOUND_IN_CLASS = frozenset(
    f"__{name}__"
    for name in ["slots", "doc", "name", "qualname", "module", "version", "match_args", "test"]
)
_BOUND_IN_MODULE = frozenset(
    f"__{name}__" for name in ["all", "author", "version", "license", "doc"]
)
_STORED = frozenset({"__name__", "__doc__", "__qualname__"})
_SPECIAL_NAMES = frozenset({"__name__", "__file__", "__doc__", "__class__"})
_DENIED_NAMES = frozenset(
    [
        "eval",
        "exec",
        "compile",
        "globals",
        "locals",
        "vars",
        "breakpoint",
        "attrgetter",
        "methodcaller",
        "update_wrapper",
        "Formatter",
        "get_type_hints",
        "ForwardRef",
        "make_dataclass",
    ]
)
_METACLASSES = frozenset({"ABCMeta", "EnumMeta", "EnumType"})

# What may be imported. `None` allows every public member that is none of `_DENIED_OF`; a text names
# the members that are allowed.
_MODULES: dict[str, str | None] = dict.fromkeys(
    [
        "abc",
        "argparse",
        "array",
        "ast",
        "asyncio",
        "asyncio.exceptions",
        "asyncio.locks",
        "asyncio.queues",
        "base64",
        "binascii",
        "bisect",
        "bz2",
        "calendar",
        "cmath",
        "cmd",
        "codecs",
        "collections",
        "collections.abc",
        "colorsys",
        "concurrent",
        "concurrent.futures",
        "configparser",
        "contextlib",
        "contextvars",
        "copy",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "email",
        "email.message",
        "email.utils",
        "email.mime",
        "email.mime.text",
        "email.mime.multipart",
        "enum",
        "errno",
        "filecmp",
        "fileinput",
        "fnmatch",
        "fractions",
        "functools",
        "getpass",
        "glob",
        "graphlib",
        "gzip",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "html.parser",
        "http",
        "http.client",
        "io",
        "ipaddress",
        "itertools",
        "json",
        "json.decoder",
        "json.encoder",
        "keyword",
        "locale",
        "logging",
        "logging.handlers",
        "lzma",
        "math",
        "mimetypes",
        "numbers",
        "operator",
        "os.path",
        "pathlib",
        "platform",
        "pprint",
        "queue",
        "random",
        "re",
        "reprlib",
        "sched",
        "secrets",
        "shlex",
        "shutil",
        "smtplib",
        "sqlite3",
        "stat",
        "statistics",
        "string",
        "stringprep",
        "struct",
        "tarfile",
        "tempfile",
        "textwrap",
        "threading",
        "time",
        "tokenize",
        "types",
        "typing",
        "typing_extensions",
        "unicodedata",
        "urllib",
        "urllib.parse",
        "urllib.error",
        "urllib.request",
        "uuid",
        "warnings",
        "weakref",
        "xml",
        "xml.etree",
        "xml.etree.ElementTree",
        "xml.dom",
        "xml.dom.minidom",
        "zipfile",
        "zlib",
        "zoneinfo",
        "numpy",
        "numpy.random",
        "numpy.linalg",
        "numpy.typing",
        "numpy.fft",
        "numpy.ma",
        "numpy.char",
        "numpy.polynomial",
        "pandas.api",
        "pandas.api.types",
        "pandas",
        "requests",
        "dateutil",
        "dateutil.relativedelta",
        "dateutil.tz",
        "dateutil.parser",
        "sortedcontainers",
        "scipy",
        "scipy.stats",
        "scipy.optimize",
        "scipy.spatial",
        "scipy.spatial.distance",
        "scipy.special",
        "scipy.linalg",
        "scipy.signal",
        "networkx",
        "bs4",
        "sklearn",
        "sklearn.metrics",
        "sklearn.linear_model",
        "sklearn.cluster",
        "sklearn.preprocessing",
    ]
) | {
    "__future__": "annotations generator_stop division print_function absolute_import",
    "os": "path getcwd listdir makedirs mkdir remove rename replace environ getenv sep linesep walk "
    "scandir stat rmdir unlink cpu_count getpid urandom PathLike fspath pathsep curdir pardir name "
    "access F_OK R_OK W_OK X_OK SEEK_SET SEEK_CUR SEEK_END chmod removedirs error strerror extsep",
    "sys": "maxsize float_info int_info setrecursionlimit getrecursionlimit stdin stdout stderr exit "
    "version version_info platform getsizeof byteorder argv set_int_max_str_digits maxunicode "
    "hash_info intern getrefcount executable get_int_max_str_digits",
    "inspect": "signature Parameter Signature isfunction isclass iscoroutinefunction isgenerator "
    "isgeneratorfunction ismethod isbuiltin isroutine iscoroutine isawaitable getdoc isabstract",
    "traceback": "print_exc format_exc print_exception format_exception_only",
    "types": "SimpleNamespace MappingProxyType GeneratorType FunctionType MethodType NoneType "
    "LambdaType BuiltinFunctionType ModuleType TracebackType UnionType GenericAlias CoroutineType",
}
_DENIED_OF: Mapping[str, frozenset[str]] = {
    "asyncio": frozenset({"create_subprocess_exec", "create_subprocess_shell", "subprocess"}),
    "concurrent.futures": frozenset({"ProcessPoolExecutor", "process"}),
    "dataclasses": frozenset({"make_dataclass"}),
    "functools": frozenset({"update_wrapper"}),
    "numpy": frozenset(
        [
            "load",
            "save",
            "fromfile",
            "memmap",
            "lib",
            "core",
            "ctypeslib",
            "f2py",
            "testing",
            "distutils",
            "DataSource",
        ]
    ),
    "pandas": frozenset({"read_pickle", "to_pickle", "eval", "testing", "io", "core"}),
    "string": frozenset({"Formatter"}),
    "threading": frozenset({"settrace", "setprofile", "excepthook"}),
    "typing": frozenset({"get_type_hints", "ForwardRef"}),
    "typing_extensions": frozenset({"get_type_hints", "ForwardRef", "evaluate_forward_ref"}),
    "types": frozenset(),
}
_STAR = frozenset(
    [
        "math",
        "cmath",
        "collections",
        "itertools",
        "heapq",
        "bisect",
        "typing",
        "random",
        "datetime",
        "decimal",
        "fractions",
        "statistics",
        "re",
        "time",
        "enum",
        "abc",
        "copy",
        "json",
        "queue",
        "dataclasses",
        "collections.abc",
        "numbers",
    ]
)
_CLASS_MAKERS = ("dataclass", "total_ordering")
_KEEP_CLASS = (*_CLASS_MAKERS, "unique", "final", "runtime_checkable")
_SYS_STORED = frozenset({"stdin", "stdout", "stderr"})
_NUM_ARGS = {"type": (1, 1), "getattr": (2, 3), "wraps": (1, 1)}


class NotHonestError(Exception):
    """A program breaks a rule; its message says which, for people."""


@dataclass(frozen=True, slots=True)
class TestNames:
    """What tests call things: where a program may not stand in for something else."""

    __test__ = False

    used: frozenset[str]  # every name and member that the tests mention
    taken: frozenset[str]  # names of builtins and modules that the tests judge with


def read_program(tree: ast.Module, given: ast.Module, tests: TestNames) -> None:
    """Return if a program is an ordinary one; `given` are imports that it did not make itself.

    Raises NotHonestError, whose text names what the program does and in which line.
    """
    _Reading(tests).read(tree, given)


def names_in_tests(trees: list[ast.Module], program: ast.Module) -> TestNames:
    """What tests mention, and which names they would be judged by that the program redefines."""
    defined = {name for node in program.body for name in _bound_by(node)}
    used: set[str] = set()
    taken: set[str] = set()
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
    return TestNames(frozenset(used), frozenset(taken))


def _judged_by(node: ast.AST, defined: set[str]) -> Iterator[str]:
    """Names through which a value of the program passes on its way to a check."""
    match node:
        case ast.Attribute(value=ast.Name(id=name)) if name in sys.stdlib_module_names:
            yield name
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


@dataclass(slots=True)
class _Scope:
    """Names that a function binds, which are no imports of the module however they are spelt."""

    names: set[str]


@dataclass(slots=True)
class _Reading:
    """One pass over a program."""

    tests: TestNames
    modules: dict[str, str] = field(default_factory=dict)  # bound name -> module
    imported: set[str] = field(default_factory=set)  # bound to members of modules
    scopes: list[_Scope] = field(default_factory=list)
    in_class: bool = False

    def read(self, tree: ast.Module, given: ast.Module) -> None:
        for node in given.body:
            if isinstance(node, ast.Import):
                self.modules |= {(a.asname or a.name.partition(".")[0]): a.name for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                self.imported |= {alias.asname or alias.name for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
        for node in tree.body:
            shadowing = set(_bound_at_top(node)) & self.tests.taken
            if shadowing:
                raise NotHonestError(f"redefines {min(shadowing)}, which the tests judge with")
        self._visit(tree)

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
                if module not in _STAR:
                    raise NotHonestError(f"line {node.lineno}: from {module} import *")
                continue
            bound = alias.asname or alias.name
            if alias.name in _CLASS_MAKERS and bound != alias.name:
                raise NotHonestError(f"line {node.lineno}: {alias.name} under another name")
            if f"{module}.{alias.name}" in _MODULES:
                self.modules[bound] = f"{module}.{alias.name}"
                continue
            if alias.name not in _METACLASSES:
                self._allow_member(module, alias.name, node)
            self.imported.add(bound)

    def _allow_module(self, name: str, node: ast.stmt) -> None:
        if name not in _MODULES:
            raise NotHonestError(f"line {node.lineno}: imports {name}")

    def _allow_member(self, module: str, name: str, node: ast.AST) -> None:
        members = _MODULES.get(module, "")
        if members is not None:
            allowed = name in members.split()
        else:
            denied = _DENIED_OF.get(module, frozenset())
            allowed = name not in denied | DENIED_MEMBERS and not name.startswith("_")
            allowed = (allowed and not name.endswith("Meta")) or name == "__version__"
        if not allowed or _is_module_of(module, name):
            raise NotHonestError(f"line {getattr(node, 'lineno', 0)}: {module}.{name}")

    # ------------------------------------------------------------ the tree

    def _visit(self, node: ast.AST) -> None:
        handler = _HANDLERS.get(type(node))
        if handler is not None:
            handler(self, node)
        else:
            self._visit_parts(node)

    def _visit_parts(self, node: ast.AST) -> None:
        for part in ast.iter_child_nodes(node):
            self._visit(part)

    def _is_module(self, name: str) -> bool:
        return name in self.modules and not any(name in scope.names for scope in self.scopes)

    def _module_of(self, node: ast.expr) -> str | None:
        """The module that an expression stands for, if it is one."""
        match node:
            case ast.Name(id=name) if self._is_module(name):
                return self.modules[name]
            case ast.Attribute(value=value, attr=name):
                parent = self._module_of(value)
                whole = f"{parent}.{name}"
                return whole if parent is not None and whole in _MODULES else None
            case _:
                return None

    def _name(self, node: ast.Name) -> None:
        name = node.id
        if name in _DENIED_NAMES and not any(name in scope.names for scope in self.scopes):
            raise NotHonestError(f"line {node.lineno}: {name}")
        if isinstance(node.ctx, ast.Load):
            if self._is_module(name):
                raise NotHonestError(f"line {node.lineno}: the module {name} as a value")
            if name in _CLASS_MAKERS and name in self.imported:
                raise NotHonestError(f"line {node.lineno}: {name} as a value")
            if name == "type" or name in _METACLASSES:
                raise NotHonestError(f"line {node.lineno}: {name} as a value")
            if _is_special(name) and name not in _SPECIAL_NAMES:
                raise NotHonestError(f"line {node.lineno}: {name}")
        elif self._is_bound_oddly(name):
            raise NotHonestError(f"line {node.lineno}: {name} is assigned")

    def _is_bound_oddly(self, name: str) -> bool:
        if self.in_class and name in COMPARISONS:
            return True
        return _is_special(name) and name not in (
            _BOUND_IN_CLASS if self.in_class else _BOUND_IN_MODULE
        )

    def _attribute(self, node: ast.Attribute) -> None:
        self._check_attribute(node)
        if self._module_of(node) is not None:
            raise NotHonestError(f"line {node.lineno}: the module {ast.unparse(node)} as a value")
        self._visit_base(node.value)

    def _visit_base(self, node: ast.expr) -> None:
        """Visit what a member is asked of: a module may stand there."""
        if self._module_of(node) is None:
            self._visit(node)
        elif isinstance(node, ast.Attribute):
            self._check_attribute(node)
            self._visit_base(node.value)

    def _check_attribute(self, node: ast.Attribute) -> None:
        name, module = node.attr, self._module_of(node.value)
        stored = not isinstance(node.ctx, ast.Load)
        if module is not None:
            if name in _CLASS_MAKERS:
                raise NotHonestError(f"line {node.lineno}: {name} as a value")
            if f"{module}.{name}" not in _MODULES:
                self._allow_member(module, name, node)
            if stored and not (module == "sys" and name in _SYS_STORED):
                raise NotHonestError(f"line {node.lineno}: {module}.{name} is assigned")
            return
        self._allow_name(name, node)
        if name in _METACLASSES:
            raise NotHonestError(f"line {node.lineno}: {name} as a value")
        if stored and _is_special(name) and name not in _STORED:
            raise NotHonestError(f"line {node.lineno}: {name} is assigned")
        base = node.value
        if stored and isinstance(base, ast.Name) and base.id in self.imported:
            raise NotHonestError(f"line {node.lineno}: {base.id}.{name} is assigned")

    def _allow_name(self, name: str, node: ast.AST) -> None:
        if name in DENIED_MEMBERS or (_is_special(name) and name not in _ASKED):
            raise NotHonestError(f"line {getattr(node, 'lineno', 0)}: asks for {name}")

    def _call(self, node: ast.Call) -> None:
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
        args: list[ast.AST] = [*node.args, *node.keywords]
        if name in ("query", "eval") or getattr(node.func, "attr", "") == "query":
            self._query(node)
        if name in ("attrgetter", "methodcaller"):
            self._constant_members(node)
            self._visit_parts_of(args)
            return
        if name == "type":
            self._visit_parts_of(args)
            return
        if name in ("isinstance", "issubclass", "map"):
            args = [arg for arg in args if not (isinstance(arg, ast.Name) and arg.id == "type")]
        self._visit(node.func)
        self._visit_parts_of(args)

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

    def _visit_parts_of(self, nodes: list[ast.AST]) -> None:
        for node in nodes:
            self._visit(node)

    def _constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and any(name in node.value for name in _HIDDEN):
            raise NotHonestError(f"line {node.lineno}: a text that names a frame")

    def _pattern(self, node: ast.MatchClass) -> None:
        for name in node.kwd_attrs:
            self._allow_name(name, node)
        self._visit_parts(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        args = node.args
        if not isinstance(node, ast.Lambda):
            if _is_special(node.name) and not (self.in_class and node.name in _METHODS):
                raise NotHonestError(f"line {node.lineno}: defines {node.name}")
            self._visit_parts_of([*node.decorator_list])
            if node.name in OPERATORS and self.in_class:
                self._operator(node)
            self._annotation(node.returns)
        all_args = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        named = [arg for arg in all_args if arg is not None]
        for arg in named:
            self._annotation(arg.annotation)
        self._visit_parts_of([*args.defaults, *(d for d in args.kw_defaults if d is not None)])
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
        bound = {arg.arg for arg in named} | _bound_in(body)
        outer, self.in_class = self.in_class, False
        self.scopes.append(_Scope(bound))
        self._visit_parts_of(body)
        self.scopes.pop()
        self.in_class = outer

    def _operator(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            text = ast.unparse(decorator).rpartition(".")[2]
            if text in ("staticmethod", "classmethod", "property", "singledispatchmethod"):
                raise NotHonestError(f"line {node.lineno}: {node.name} is no plain method")

    def _comprehension(self, node: ast.AST) -> None:
        self.scopes.append(_Scope({n.id for n in _stored_in([node])}))
        self._visit_parts(node)
        self.scopes.pop()

    def _class(self, node: ast.ClassDef) -> None:
        for keyword in node.keywords:
            value = keyword.value
            name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
            if keyword.arg is None or (keyword.arg == "metaclass" and name not in _METACLASSES):
                raise NotHonestError(f"line {node.lineno}: a metaclass")
        self._class_decorators(node)
        self._visit_parts_of(node.bases)
        self._visit_parts_of([k.value for k in node.keywords if k.arg != "metaclass"])
        outer, self.in_class = self.in_class, True
        for statement in node.body:
            if not _is_alias(statement):
                self._visit(statement)
        self.in_class = outer

    def _class_decorators(self, node: ast.ClassDef) -> None:
        """What changes a class is given that of the statement, and no other."""
        for at, decorator in enumerate(node.decorator_list):
            made = decorator.func if isinstance(decorator, ast.Call) else decorator
            if ast.unparse(made).rpartition(".")[2] not in _CLASS_MAKERS:
                self._visit(decorator)
                continue
            below = (ast.unparse(d) for d in node.decorator_list[at + 1 :])
            if any(text.partition("(")[0].rpartition(".")[2] not in _KEEP_CLASS for text in below):
                raise NotHonestError(f"line {node.lineno}: {ast.unparse(made)} of another's class")
            if isinstance(decorator, ast.Call):
                if decorator.args:
                    raise NotHonestError(f"line {node.lineno}: {ast.unparse(made)} as a function")
                self._visit_parts_of([*decorator.keywords])

    def _assigned(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        self._visit_parts_of([node.target, *([] if node.value is None else [node.value])])

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
        self._visit_parts(node)


_HIDDEN = tuple(
    name for name in _FRAMES if name.partition("_")[0] in ("gi", "cr", "ag", "tb", "f", "co")
)


def _is_module_of(module: str, name: str) -> bool:
    """Whether a member is a module: one that is not listed, and would be a value."""
    if f"{module}.{name}" in _MODULES or not module:
        return False
    try:
        return isinstance(getattr(importlib.import_module(module), name, None), ModuleType)
    except Exception:  # noqa: BLE001 - the program will see for itself
        return False


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and len(name) > 4


def _is_alias(node: ast.stmt) -> bool:
    """`__radd__ = __add__` in a class, or `__hash__ = None`."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=value)):
            return {name, value} <= _METHODS and (name in OPERATORS) <= (value in OPERATORS)
        case ast.Assign(targets=[ast.Name(id="__hash__")], value=ast.Constant(value=None)):
            return True
        case _:
            return False


def _bound_at_top(node: ast.stmt) -> Iterator[str]:
    """Names that a statement of a module binds in it, its own imports apart."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import() | ast.ImportFrom():
            pass
        case _:
            yield from _bound_in([node])


def _stored_in(nodes: Iterable[ast.AST]) -> Iterator[ast.Name]:
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
                yield part


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


_HANDLERS: dict[type[ast.AST], Callable[[_Reading, Any], None]] = {
    ast.Name: _Reading._name,
    ast.Attribute: _Reading._attribute,
    ast.Call: _Reading._call,
    ast.Constant: _Reading._constant,
    ast.MatchClass: _Reading._pattern,
    ast.FunctionDef: _Reading._function,
    ast.AsyncFunctionDef: _Reading._function,
    ast.Lambda: _Reading._function,
    ast.ListComp: _Reading._comprehension,
    ast.SetComp: _Reading._comprehension,
    ast.DictComp: _Reading._comprehension,
    ast.GeneratorExp: _Reading._comprehension,
    ast.ClassDef: _Reading._class,
    ast.AnnAssign: _Reading._assigned,
    ast.alias: _Reading._bindings,
    ast.ExceptHandler: _Reading._bindings,
    ast.MatchAs: _Reading._bindings,
    ast.MatchStar: _Reading._bindings,
    ast.MatchMapping: _Reading._bindings,
    ast.Global: _Reading._bindings,
    ast.Nonlocal: _Reading._bindings,
}
