"""When two programs are the same: a text that does not depend on layout and names of variables."""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections import Counter
from typing import cast

_WORD = re.compile(r"\w+")


class _Renamer(ast.NodeTransformer):
    """Numbers the variables of a program in order of meeting; drops constants that stand alone."""

    def __init__(self, names: set[str]) -> None:
        self._numbers: dict[str, str] = {}
        self._names = names

    def _number(self, name: str) -> str:
        if name not in self._names:
            return name
        return self._numbers.setdefault(name, f"v{len(self._numbers)}")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self._number(node.arg), None)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)


def normalise(code: str) -> str:
    """Return a text that is equal for programs that differ only in layout and variable names.

    Comments, docstrings, formatting and annotations of parameters do not count; names of functions,
    classes and imports do, and so does a variable called like a builtin or used as a keyword.
    Code that does not parse stands for itself.

    >>> normalise("def f(a): return a + 1") == normalise("def f(b):\\n    return b+1  # next")
    True
    """
    tree = parse(code)
    if tree is None:
        return code.strip()
    try:
        return ast.dump(_Renamer(variables(tree)).visit(tree), annotate_fields=False)
    except RecursionError:
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
    bound: set[str] = set()
    fixed: set[str] = set(dir(builtins)) | _assigned_functions(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                bound.add(name)
            case ast.Name() | ast.Attribute() | ast.Constant():
                pass
            case (
                _
            ):  # whatever else spells a name: definitions, imports, keywords, `global`, patterns
                for _, value in ast.iter_fields(node):
                    spelled = cast("list[object]", value) if isinstance(value, list) else [value]
                    fixed.update(name for name in spelled if isinstance(name, str))
    return bound - fixed


def _assigned_functions(tree: ast.Module) -> set[str]:
    """Names by which others may call a function that no `def` gave its name: `f = lambda x: x`."""
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    found: set[str] = set()
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        value = node.value
        if isinstance(value, ast.Lambda) or (isinstance(value, ast.Name) and value.id in defined):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found
