"""Normal form of a program: a text that does not depend on layout and names of variables."""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections import Counter
from typing import cast

_WORD = re.compile(r"\w+")

# A program that looks names up by their spelling does something else when they are spelt otherwise.
_SPELLED = frozenset({"locals", "globals", "vars", "dir", "eval", "exec", "__dict__", "_getframe"})
# And one that reads docstrings or annotations, when these are others.
_READS_TEXTS = frozenset({"__doc__", "getdoc", "help"})
_READS_ANNOTATIONS = frozenset(
    {"__annotations__", "get_type_hints", "get_annotations", "signature", "inspect"}
)
_PLAIN_TYPES = frozenset({"int", "float", "str", "bool", "bytes", "list", "dict", "set", "tuple"})
# What gives no function, so that nobody can be meant to call the name of it.
_CONVERSIONS = frozenset(
    {"len", "sum", "max", "min", "sorted", "input", "range", "map", "filter", "zip", "enumerate"}
    | {"abs", "round", "pow", "ord", "chr", "divmod", "reversed", "frozenset", "open", "any", "all"}
    | _PLAIN_TYPES
)
_OF_DATA = frozenset(
    {"split", "strip", "rstrip", "lstrip", "read", "readline", "readlines", "splitlines", "join"}
    | {"copy", "count", "index", "find", "replace", "lower", "upper", "items", "keys", "values"}
)


class _Renamer(ast.NodeTransformer):
    """Numbers the variables of a program in order of meeting; drops constants that stand alone."""

    def __init__(self, names: set[str], words: set[str]) -> None:
        self._numbers: dict[str, str] = {}
        self._names = names
        self._keeps_texts = bool(words & _READS_TEXTS)
        self._keeps_annotations = bool(words & _READS_ANNOTATIONS)
        self._is_decorated = False

    def _number(self, name: str) -> str:
        if name not in self._names:
            return name
        # No name that a program can have, so that none is taken for another.
        return self._numbers.setdefault(name, f"0v{len(self._numbers)}")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        kept = node.annotation
        if kept is not None and not self._is_decorated and not self._keeps_annotations:
            kept = None if _is_plain_type(kept) else kept
        annotation = None if kept is None else cast("ast.expr", self.visit(kept))
        return ast.arg(self._number(node.arg), annotation)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        drops = isinstance(node.value, ast.Constant) and not self._keeps_texts
        return None if drops else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._visit_function(node)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        outer, self._is_decorated = self._is_decorated, bool(node.decorator_list)
        visited = self.generic_visit(node)
        self._is_decorated = outer
        return visited


def _is_plain_type(annotation: ast.expr) -> bool:
    """Whether it is made of builtin types alone: evaluating it does nothing and cannot fail."""
    return all(
        (isinstance(node, ast.Name) and node.id in _PLAIN_TYPES)
        or (isinstance(node, ast.Constant) and node.value is None)
        or isinstance(node, ast.expr_context)
        for node in ast.walk(annotation)
    )


def normalise(code: str) -> str:
    """Return a text that is equal for programs that differ only in layout and variable names.

    Comments, docstrings, formatting and annotations of parameters with builtin types do not count;
    names of functions, classes, attributes and imports do, and so does a variable called like a
    builtin or used as a keyword. Where a program can see the difference (`locals()`, `__doc__`,
    `__annotations__`) nothing is left away. Code that does not parse stands for itself.

    >>> normalise("def f(a): return a + 1") == normalise("def f(b):\\n    return b+1  # next")
    True
    """
    tree = parse(code)
    if tree is None:
        return code.strip()
    try:
        renamer = _Renamer(variables(tree), _words(tree))
        return ast.dump(renamer.visit(tree), annotate_fields=False)
    except (RecursionError, ValueError):  # too deep; an integer of too many digits
        return code.strip()


def words_of(normalised: str) -> Counter[str]:
    """Return how often each word stands in the text of `normalise`: names, numbers, node types."""
    return Counter(_WORD.findall(normalised))


def num_other_words(one: Counter[str], other: Counter[str]) -> int:
    """Return how many words of either program the other one does not have.

    >>> num_other_words(words_of("a + b"), words_of("a + c"))
    2
    """
    return (one - other | other - one).total()


def parse(code: str) -> ast.Module | None:
    """Return the syntax tree, or None when there is none (or none that Python can hold)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `1 is 1` and the like: not our code
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def variables(tree: ast.Module) -> set[str]:
    """Return the names that can be changed without changing what the program does."""
    if _words(tree) & _SPELLED:
        return set()
    bound: set[str] = set()
    fixed: set[str] = set(dir(builtins)) | _assigned_functions(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                bound.add(name)
            case ast.Name() | ast.Constant():
                pass
            case ast.ClassDef(body=body):  # its variables are attributes
                fixed.add(node.name)
                fixed |= {name for item in body for name in _stored(item)}
            case (
                _
            ):  # whatever else spells a name: definitions, imports, keywords, `global`, patterns
                for _, value in ast.iter_fields(node):
                    spelled = cast("list[object]", value) if isinstance(value, list) else [value]
                    fixed.update(name for name in spelled if isinstance(name, str))
    return bound - fixed


def _stored(node: ast.stmt) -> set[str]:
    """Names that a statement binds, those inside of functions left out."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return set()
    stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return {name.id for name in stored if isinstance(name.ctx, ast.Store)}


def _words(tree: ast.Module) -> set[str]:
    """Names, attributes and imported modules of a program."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.alias(name=word):
                found.add(word)
            case _:
                pass
    return found


def _assigned_functions(tree: ast.Module) -> set[str]:
    """Names by which others may call a function that no `def` gave its name.

    `f = lambda x: x`, `f = partial(g, 1)`, `f = memo(g)`: whatever is assigned at the top and is
    not surely data.
    """
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and not _is_data(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def _is_data(value: ast.expr | None) -> bool:
    match value:
        case None | ast.Lambda() | ast.Name() | ast.Attribute() | ast.IfExp() | ast.BoolOp():
            return False
        case ast.NamedExpr() | ast.Subscript() | ast.Await() | ast.Yield() | ast.YieldFrom():
            return False
        case ast.Call(func=ast.Name(id=name)):
            return name in _CONVERSIONS
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in _OF_DATA
        case ast.Call():
            return False
        case _:
            return True
