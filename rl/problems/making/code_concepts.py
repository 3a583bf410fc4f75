"""Concepts of a problem: what its known solution is made of, and what it is tagged with.

A solution is parsed and never run. Concepts are worded as a writer is asked for them.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import cast

from rl.problems.datasets.python_code import parsed
from rl.problems.datasets.rows import RuleError
from rl.problems.making.concepts import Concept

_TAGS = ("tags", "skill_types", "cf_tags")  # of TACO and CodeContests
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LOOPS = (ast.For, ast.While)
_BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("_"))
_METHODS = frozenset(
    name for name in chain(dir(str), dir(list), dir(dict), dir(set)) if not name.startswith("_")
)
_NODES: Mapping[type[ast.AST], Concept] = {
    ast.For: Concept("control", "a for loop"),
    ast.While: Concept("control", "a while loop"),
    ast.If: Concept("control", "conditions"),
    ast.IfExp: Concept("control", "conditions"),
    ast.Try: Concept("control", "exceptions"),
    ast.Yield: Concept("control", "a generator"),
    ast.Lambda: Concept("control", "a lambda"),
    ast.ClassDef: Concept("control", "a class"),
    ast.ListComp: Concept("data", "a list comprehension"),
    ast.DictComp: Concept("data", "a dictionary comprehension"),
    ast.SetComp: Concept("data", "a set comprehension"),
    ast.GeneratorExp: Concept("data", "a generator expression"),
    ast.Dict: Concept("data", "a dictionary"),
    ast.Set: Concept("data", "a set"),
    ast.Tuple: Concept("data", "tuples"),
    ast.Slice: Concept("data", "slices"),
    ast.JoinedStr: Concept("data", "formatted text"),
    ast.Add: Concept("operator", "arithmetic"),
    ast.Sub: Concept("operator", "arithmetic"),
    ast.Mult: Concept("operator", "arithmetic"),
    ast.Div: Concept("operator", "arithmetic"),
    ast.Mod: Concept("operator", "remainders"),
    ast.FloorDiv: Concept("operator", "integer division"),
    ast.Pow: Concept("operator", "powers"),
    ast.BitAnd: Concept("operator", "bits"),
    ast.BitOr: Concept("operator", "bits"),
    ast.BitXor: Concept("operator", "bits"),
    ast.LShift: Concept("operator", "bits"),
    ast.RShift: Concept("operator", "bits"),
}


def concepts_of(meta: Mapping[str, object]) -> frozenset[Concept]:
    """Concepts that the metadata of a problem state: of its `solution`, and its tags.

    >>> sorted(c.name for c in concepts_of({"solution": "def f(x): return sum(x) % 2"}))
    ['remainders', 'sum()']
    """
    return frozenset([*_of_tags(meta), *_of_code(meta.get("solution"))])


def _of_tags(meta: Mapping[str, object]) -> Iterator[Concept]:
    """Lists of texts, or such a list as a text."""
    for key in _TAGS:
        value = meta.get(key)
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                value = [value]
        for tag in cast("list[object]", value) if isinstance(value, list) else []:
            if isinstance(tag, str) and tag.strip():
                yield Concept("tag", tag.strip().lower())


def _of_code(solution: object) -> Iterator[Concept]:
    """What a program is made of; nothing of one that does not parse."""
    try:
        tree = parsed(solution)
    except RuleError:
        return
    nodes = list(ast.walk(tree))
    imported = dict(_imports(nodes))
    own = {node.name for node in nodes if isinstance(node, (*_FUNCTIONS, ast.ClassDef))}
    for node in nodes:
        is_target = isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Store)
        if type(node) in _NODES and not is_target:
            yield _NODES[type(node)]
        if isinstance(node, ast.Call):
            name = _called(node.func, imported, own)
            if name is not None:
                yield Concept("call", name)
        elif isinstance(node, _LOOPS) and any(_within(node, _LOOPS)):
            yield Concept("control", "nested loops")
        elif isinstance(node, _FUNCTIONS) and any(
            isinstance(call.func, ast.Name) and call.func.id == node.name
            for call in _within(node, (ast.Call,))
            if isinstance(call, ast.Call)
        ):
            yield Concept("control", "recursion")


def _within(node: ast.AST, types: tuple[type[ast.AST], ...]) -> Iterator[ast.AST]:
    return (inner for inner in ast.walk(node) if inner is not node and isinstance(inner, types))


def _imports(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """The names that imports bind, and the modules or members that they are."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _called(func: ast.expr, imported: Mapping[str, str], own: set[str]) -> str | None:
    """A builtin, a member of a module, or a method of a builtin type; None for anything else."""
    match func:
        case ast.Name(id=name) if name not in own:
            return f"{imported[name]}()" if name in imported else _builtin(name)
        case ast.Attribute(value=ast.Name(id=name), attr=member) if name in imported:
            return f"{imported[name]}.{member}()"
        case ast.Attribute(attr=member) if member in _METHODS:
            return f"the method {member}()"
        case _:
            return None


def _builtin(name: str) -> str | None:
    return f"{name}()" if name in _BUILTINS else None
