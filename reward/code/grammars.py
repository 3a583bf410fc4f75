"""Syntax check of programs in languages other than Python, by grammars of tree-sitter.

A program counts when its grammar reads all of it without an error. The text is hostile, and a
grammar that has met an error tries many ways on, for seconds and gigabytes. So a parse ends after
`_MAX_TURNS` turns of the parser (about 100 of its actions each; 64 KiB of ordinary code take 700 to
2,000), or after `_MAX_PARSE_S` of the thread's CPU, which only what is no program takes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module

import tree_sitter

from reward.code.python_source import Budget, RefusedError, place, refuse_unencodable, trimmed
from rl.types import Extraction, Language, Reason

_MAX_BYTES = 65_536
_MAX_TURNS = 6_000
_MAX_PARSE_S = 0.25
_CHUNK = 8_192  # bytes that the parser is given at once


@dataclass(frozen=True, slots=True)
class _Grammar:
    """Where the grammar of a language is, and the tags of its blocks."""

    module: str
    tags: frozenset[str]
    function: str = "language"


_PYTHON_TAGS = frozenset({"python", "python2", "python3", "py", "py3", "ipython", "pycon"})
_GRAMMARS: dict[Language, _Grammar] = {
    "c": _Grammar("tree_sitter_c", frozenset({"c", "h"})),
    "cpp": _Grammar("tree_sitter_cpp", frozenset({"cpp", "c++", "cc", "cxx", "hpp", "c", "h"})),
    "csharp": _Grammar("tree_sitter_c_sharp", frozenset({"csharp", "cs", "c#"})),
    "go": _Grammar("tree_sitter_go", frozenset({"go", "golang"})),
    "java": _Grammar("tree_sitter_java", frozenset({"java"})),
    "javascript": _Grammar(
        "tree_sitter_javascript", frozenset({"javascript", "js", "jsx", "mjs", "node"})
    ),
    "ruby": _Grammar("tree_sitter_ruby", frozenset({"ruby", "rb"})),
    "rust": _Grammar("tree_sitter_rust", frozenset({"rust", "rs"})),
    "typescript": _Grammar(
        "tree_sitter_typescript",
        frozenset({"typescript", "ts", "javascript", "js"}),
        "language_typescript",
    ),
}
_TAGS = _PYTHON_TAGS.union(*(grammar.tags for grammar in _GRAMMARS.values()))


def is_foreign(tag: str, language: Language) -> bool:
    """Whether a tag names another language than the one that is asked for; never beside Python.

    >>> is_foreign("python", "go"), is_foreign("", "go"), is_foreign("go", "python")
    (True, False, False)
    """
    return language != "python" and tag in _TAGS - _GRAMMARS[language].tags


def check_grammar(
    language: Language, code: str, budget: Budget, *, max_bytes: int, trivial_is_valid: bool
) -> Extraction:
    """Decide whether this text is a program, as `python_source.check` does for Python.

    Raises:
        RefusedError: with every other reason than OK, EMPTY and TRIVIAL.
    """
    code = trimmed(code)
    if not code:
        return Extraction(reason=Reason.EMPTY)
    refuse_unencodable(code, min(max_bytes, _MAX_BYTES))
    budget.spend(0)
    root = _parse(code, language, min(budget.deadline, time.thread_time() + _MAX_PARSE_S))
    if all(node.is_extra or _is_idle(node) for node in root.named_children) and (
        not trivial_is_valid
    ):
        return Extraction(reason=Reason.TRIVIAL, detail="no statement that does anything")
    return Extraction(reason=Reason.OK, code=code)


def _parse(code: str, language: Language, deadline: float) -> tree_sitter.Node:
    """The root of an error-free tree, or RefusedError."""
    data = code.encode()
    turns = 0

    def stops(offset: int, has_error: bool) -> bool:
        nonlocal turns
        del offset, has_error  # an error of one way to read it; there may be others
        turns += 1
        return turns > _MAX_TURNS or time.thread_time() > deadline

    try:
        tree = tree_sitter.Parser(_load(language)).parse(
            lambda offset, _: data[offset : offset + _CHUNK], progress_callback=stops
        )
    except ValueError:  # it was stopped
        if turns > _MAX_TURNS:
            detail = f"more than {_MAX_TURNS} turns of the parser"
            raise RefusedError(Reason.TOO_LONG, detail) from None
        raise RefusedError(Reason.DEADLINE, "the parser did not finish in time") from None
    node = tree.root_node
    if not node.has_error:
        return node
    while (inner := next((n for n in node.children if n.has_error), None)) is not None:
        node = inner
    at = place(code, len(data[: node.start_byte].decode(errors="ignore")))
    raise RefusedError(Reason.SYNTAX, f"{at}: this is no {language}")


@lru_cache
def _load(language: Language) -> tree_sitter.Language:
    grammar = _GRAMMARS[language]
    pointer: object = getattr(import_module(grammar.module), grammar.function)()
    return tree_sitter.Language(pointer)


def _is_idle(node: tree_sitter.Node) -> bool:
    """Whether a node is one name, number or text and no more, whatever it is wrapped in."""
    while True:
        inner = [child for child in node.named_children if not child.is_extra]
        if len(inner) != 1:
            return not inner
        (node,) = inner
