"""Small edits of a Python program: the mistakes that a nearly right program makes.

An edit replaces a piece of the source and leaves the rest as it was written: a program that were
printed anew from its syntax tree would give itself away by its layout.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from reward.code.normal_form import parse, variables

_SYMBOLS: dict[type[ast.cmpop | ast.operator], str] = {
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_MISTAKEN_FOR = {
    ">": (">=", "<", "=="),
    ">=": (">", "<=", "=="),
    "<": ("<=", ">", "=="),
    "<=": ("<", ">=", "=="),
    "==": ("!=", ">=", "<="),
    "!=": ("==", "<", ">"),
    "in": ("not in",),
    "not in": ("in",),
    "is": ("is not",),
    "is not": ("is",),
    "+": ("-", "*"),
    "-": ("+", "*"),
    "*": ("+", "**", "-"),
    "/": ("//", "*"),
    "//": ("/", "%"),
    "%": ("//", "*"),
    "**": ("*",),
    "&": ("|",),
    "|": ("&", "^"),
    "^": ("|",),
    "<<": (">>",),
    ">>": ("<<",),
    "and": ("or",),
    "or": ("and",),
}
_REDUCERS = ("sum", "max", "min", "len", "sorted", "list")
_REDUCED_INSTEAD = dict.fromkeys(_REDUCERS, _REDUCERS) | {
    "any": ("all",),
    "all": ("any",),
    "set": ("list",),
    "tuple": ("sorted",),
}


@dataclass(frozen=True, slots=True)
class Edit:
    """Replaces the bytes from `start` to `end` of the UTF-8 source."""

    kind: str  # constant, variable, comparison, operator, condition, filter, reduction or part
    start: int
    end: int
    text: str


def apply(edit: Edit, code: str) -> str:
    """Return the program with one of its edits. It may not parse."""
    source = code.encode()
    return (source[: edit.start] + edit.text.encode() + source[edit.end :]).decode()


def edits(code: str, rng: random.Random) -> list[Edit]:
    """Return the edits of a program; where there are many of a sort, `rng` draws one.

    Lines must end in a line feed. A program that does not parse has none.
    """
    tree = parse(code)
    if tree is None:
        return []
    editor = _Editor(code, sorted(variables(tree)), rng)
    return [
        edit
        for parent in ast.walk(tree)
        # The text of an f-string has no place of its own; a lone constant is a docstring.
        if not isinstance(parent, ast.JoinedStr)
        for node in ast.iter_child_nodes(parent)
        if not (isinstance(parent, ast.Expr) and isinstance(node, ast.Constant))
        for edit in editor.edits(node)
    ]


class Places:
    """Where the nodes of a syntax tree stand in the UTF-8 source; lines end in a line feed."""

    def __init__(self, code: str) -> None:
        self.source = code.encode()
        lengths = (len(line) + 1 for line in self.source.split(b"\n"))
        self._line_starts = [0, *accumulate(lengths)]

    def line_start(self, line: int) -> int:
        """Return the first byte of a line, counted from 1."""
        return self._line_starts[line - 1]

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return first byte and end of a node that has a place in the source."""
        assert isinstance(node, ast.expr | ast.stmt | ast.keyword | ast.arg)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.line_start(node.lineno) + node.col_offset,
            self.line_start(node.end_lineno) + node.end_col_offset,
        )


class _Editor:
    """Finds the edits of one node at a time."""

    def __init__(self, code: str, names: Sequence[str], rng: random.Random) -> None:
        self._places = Places(code)
        self._source = self._places.source
        self._span = self._places.span
        self._names = names
        self._rng = rng

    def edits(self, node: ast.AST) -> Iterator[Edit]:
        """Yield everything that can stand in the place of `node`."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                for constant in self._constants(value):
                    yield self._put("constant", node, repr(constant))
            case ast.Name(id=name, ctx=ast.Load()) if name in self._names and len(self._names) > 1:
                other = self._rng.choice([n for n in self._names if n != name])
                yield self._put("variable", node, other)
            case ast.Call(func=ast.Name(id=name)):
                yield from self._calls(node, name)
            case ast.BinOp(left=left, op=op, right=right):
                yield from self._symbols("operator", left, _SYMBOLS.get(type(op), ""), right)
                yield from self._parts(node, left, right)
            case ast.AugAssign(target=target, op=op, value=value):
                yield from self._symbols("operator", target, _SYMBOLS.get(type(op), ""), value)
            case ast.UnaryOp(operand=operand):
                yield from self._parts(node, operand)
            case _:
                yield from self._decisions(node)

    def _decisions(self, node: ast.AST) -> Iterator[Edit]:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                yield from self._symbols("comparison", left, _SYMBOLS[type(op)], right)
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                for left, right in pairwise(values):
                    yield from self._symbols("condition", left, word, right)
                for value in values:
                    yield self._put("condition", node, self._text(value))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                yield self._put("condition", test, self._negated(test))
                yield from self._parts(node, body, orelse)
            case ast.If(test=test) | ast.While(test=test):
                yield self._put("condition", test, self._negated(test))
            case ast.comprehension():
                yield from self._filters(node)
            case _:
                pass

    def _filters(self, node: ast.comprehension) -> Iterator[Edit]:
        """Drop one condition, or negate it."""
        for before, condition in pairwise([node.iter, *node.ifs]):
            yield self._put("filter", condition, self._negated(condition))
            start, end = self._span(before)[1], self._span(condition)[1]
            # What closes the piece before (a bracket) stands in front of the word and stays.
            word = self._source.rfind(b" if", start, self._span(condition)[0])
            if word >= 0:
                yield Edit("filter", word, end, "")

    def _calls(self, node: ast.Call, name: str) -> Iterator[Edit]:
        """Call something else, forget a keyword, be off by one, forget the call."""
        for before, after in pairwise([*node.args, *node.keywords]):
            start, end = self._span(before)[1], self._span(after)[1]
            if isinstance(after, ast.keyword) and start < end:
                yield Edit("part", start, end, "")
        if name == "range" and node.args:
            end = self._span(node.args[-1])[1]
            yield Edit("constant", end, end, " + 1")
            yield Edit("constant", end, end, " - 1")
        if len(node.args) != 1:
            return
        (argument,) = node.args
        text, needs_list = self._text(argument), isinstance(argument, ast.GeneratorExp)
        if needs_list:
            text = f"[{text[1:-1]}]"  # a generator has no length, and is no result
        if not node.keywords:
            yield self._put("part", node, text)
        for other in _REDUCED_INSTEAD.get(name, ()):
            if other == "len" and needs_list:
                yield self._put("reduction", node, f"len({text})")
            elif other != name:
                yield self._put("reduction", node.func, other)

    def _symbols(self, kind: str, left: ast.AST, symbol: str, right: ast.AST) -> Iterator[Edit]:
        """Replace the symbol between two nodes."""
        after, before = self._span(left)[1], self._span(right)[0]
        start = self._source.find(symbol.encode(), after, before)
        if symbol and start >= 0:
            for other in _MISTAKEN_FOR.get(symbol, ()):
                yield Edit(kind, start, start + len(symbol), other)

    def _parts(self, node: ast.AST, *parts: ast.AST) -> Iterator[Edit]:
        for part in parts:
            yield self._put("part", node, self._text(part))

    def _constants(self, value: float | str) -> list[float | str]:
        if isinstance(value, bool):
            return [not value]
        if isinstance(value, str):
            return [value[:-1], value[1:]] if value else []
        return [value + 1, value - 1, -value, self._rng.randint(0, 10)]

    def _negated(self, test: ast.expr) -> str:
        loose = isinstance(test, ast.BoolOp | ast.IfExp | ast.Lambda | ast.NamedExpr)
        return f"not ({self._text(test)})" if loose else f"not {self._text(test)}"

    def _put(self, kind: str, node: ast.AST, text: str) -> Edit:
        return Edit(kind, *self._span(node), text)

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()
