"""Syntax check: whether a text is a Python program, by `ast.parse`, at a cost bounded beforehand.

The text is hostile and `ast.parse` cannot be interrupted, so work is bounded before it starts, by
passes that are linear in the text:

- the program: its bytes, and `_MAX_WORK` units of parsing (one unit is about one token; `_WEIGHTS`
  and `_weight` are fitted to what CPython 3.11 takes longest on)
- one top-level statement: `_MAX_STATEMENT_WORK` units, because CPython parses what it refuses a
  second time to word the message; statements before it have been parsed on their own by then
- nesting of brackets: `_MAX_DEPTH`, CPython's own limit

Ordinary code of 64 KiB has 8,000 to 15,000 units. No clock decides a verdict unless the
thread has computed for longer than its `Budget` says, twenty times what the limits above allow.
"""

from __future__ import annotations

import ast
import gc
import re
import threading
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import tree_sitter
import tree_sitter_python

from rl.types import Extraction, Reason

_MAX_WORK = 16_000
_MAX_STATEMENT_WORK = 6_000
_MAX_DEPTH = 200
_MAX_DIGITS = 4_300  # CPython's own limit; a process that reads tests has a higher one
_PIECE_WORK = 1_000  # statements are parsed together up to here: a call has a fixed cost
_MAX_PLACE_CHARS = 4_096  # tree-sitter takes up to 2.5 us a byte on text that is not Python

_LANGUAGE = tree_sitter.Language(tree_sitter_python.language())
_INTERPRETER = threading.Lock()

_BLANK_LINES = re.compile(r"(?:[ \t\f]*+\n)*+")
_CODING = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
# Encodings under which a file has the meaning that its text has here.
_CODINGS = frozenset({"utf-8", "utf8", "utf-8-sig", "ascii", "us-ascii", "latin-1", "iso-8859-1"})

_QUOTED = r"""
    \"{3}(?:[^"\\]++|\\.|"(?!""))*+(?:\"{3}|\Z)
  | '{3}(?:[^'\\]++|\\.|'(?!''))*+(?:'{3}|\Z)
  | "(?:[^"\\\n]++|\\.)*+"?
  | '(?:[^'\\\n]++|\\.)*+'?
"""
# String literals, ended or not, and comments: a fence or a bracket in there is none.
OPAQUE = re.compile(rf"{_QUOTED} | \#[^\n]*+", re.VERBOSE | re.DOTALL)
# What starts a statement at column 0, rather than going on with one.
_STATEMENT = r"@|(?!(?:else|elif|except|finally)\b)[^\W\d]"
_TOKEN = re.compile(
    rf"""
      (?P<fstring>(?:[fF][rR]?|[rR][fF])(?:{_QUOTED}))
    | [bBrRuU]{{0,2}}(?:{_QUOTED})
    | [A-Za-z0-9_]++
    | (?P<comment>\#[^\n]*+)
    | (?P<wide>[\u0080-\U0010ffff][\w\u0080-\U0010ffff]*+)
    | (?P<statement>(?<!\\)\n(?:[ \t\f]*+\n)*+(?={_STATEMENT}))
    | (?P<line>\n[ \t\f\n]*+)
    | (?P<open>[(\[{{])
    | (?P<close>[)\]}}])
    | (?P<comma>,)
    | (?P<space>[ \t\f]{{2,}}+)
    | [^ \t\f]
    """,
    re.VERBOSE | re.DOTALL,
)
_WEIGHTS = {
    None: 1, "open": 1, "close": 1, "comma": 2, "line": 2, "statement": 2, "comment": 0, "space": 0
}  # fmt: skip


class RefusedError(Exception):
    """This is no program, for this reason; the call that asked ends here."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.extraction = Extraction(reason=reason, detail=detail)


@dataclass(slots=True, kw_only=True)
class Budget:
    """What one call may still spend, over all parses that it makes."""

    deadline: float  # time.thread_time(): a busy machine refuses no program
    work: int = _MAX_WORK

    def spend(self, work: int) -> None:
        """Take `work` units, or refuse the completion."""
        self.work -= work
        if self.work < 0:
            detail = f"resolving its fences takes more than {_MAX_WORK} units of parsing"
            raise RefusedError(Reason.DEADLINE, detail)
        if time.thread_time() > self.deadline:
            raise RefusedError(Reason.DEADLINE, "the deadline passed before the parse")


def check(code: str, budget: Budget, *, max_bytes: int, trivial_is_valid: bool) -> Extraction:
    """Decide whether this text is a program of at most `max_bytes` in UTF-8.

    Line ends must be `\\n`. The answer is OK, with the code, or EMPTY or TRIVIAL.

    Raises:
        RefusedError: with every other reason why it is none.
    """
    code = trimmed(code)
    if not code:
        return Extraction(reason=Reason.EMPTY)
    refuse_unencodable(code, max_bytes)
    _refuse_foreign_coding(code)
    pieces, work = _cut(code)
    budget.spend(work)
    trivial = True
    num_lines = 0
    with _quiet_interpreter():
        for piece in pieces:
            trivial = _parse(piece, num_lines) and trivial
            num_lines += piece.count("\n")
    if trivial and not trivial_is_valid:
        return Extraction(reason=Reason.TRIVIAL, detail="no statement that does anything")
    return Extraction(reason=Reason.OK, code=code)


def trimmed(code: str) -> str:
    """Code without a byte order mark and blank lines around it; "" where it is white space."""
    code = code.removeprefix("\ufeff")
    if not code.strip():
        return ""
    blank = _BLANK_LINES.match(code)
    return code[blank.end() if blank else 0 :].rstrip(" \t\f\n")


def refuse_unencodable(code: str, max_bytes: int) -> None:
    """Refuse what is too long, or is no UTF-8 source file whatever its syntax."""
    num_bytes = len(code) if len(code) > max_bytes else len(code.encode(errors="surrogatepass"))
    if num_bytes > max_bytes:
        detail = f"{num_bytes} bytes or more; the limit is {max_bytes}"
        raise RefusedError(Reason.TOO_LONG, detail)
    foreign = re.search("[\x00\ud800-\udfff]", code)
    if foreign is not None:
        name = "NUL byte" if foreign[0] == "\x00" else f"lone surrogate U+{ord(foreign[0]):04X}"
        raise RefusedError(Reason.SYNTAX, f"{place(code, foreign.start())}: {name}")


def _refuse_foreign_coding(code: str) -> None:
    """Refuse a program that is another text where its declaration is obeyed."""
    for number, line in enumerate(code.split("\n", 2)[:2], start=1):
        coding = _CODING.match(line[:200])
        if coding is not None and coding[1].lower().replace("_", "-") not in _CODINGS:
            raise RefusedError(Reason.SYNTAX, f"{number}:1: declared encoding {coding[1]!r}")


def _cut(code: str) -> tuple[list[str], int]:
    """Cut code between top-level statements, into pieces to parse; returns them and their work.

    The pieces joined are the code. The code parses exactly when all of them do, because a cut lies
    outside strings and brackets, before a line that starts a statement.
    """
    pieces: list[str] = []
    start = depth = work = work_at_cut = work_at_statement = heaviest = 0
    decorated = code.startswith("@")
    tokens = _TOKEN.finditer(code)
    for token in islice(tokens, _MAX_WORK):
        kind = token.lastgroup
        if kind is None and token.end() - token.start() > _MAX_DIGITS:
            _refuse_digits(code, token)
        work += _WEIGHTS[kind] if kind in _WEIGHTS else _weight(kind, token[0])
        if kind == "open":
            depth += 1
            if depth > _MAX_DEPTH:
                at = place(code, token.start())
                raise RefusedError(Reason.SYNTAX, f"{at}: more than {_MAX_DEPTH} open brackets")
        elif kind == "close":
            depth -= 1
        elif kind == "statement" and depth <= 0:
            if not decorated:
                heaviest, work_at_statement = max(heaviest, work - work_at_statement), work
                if work - work_at_cut >= _PIECE_WORK:
                    pieces.append(code[start : token.end()])
                    start, work_at_cut = token.end(), work
            decorated = code[token.end()] == "@"
    if work > _MAX_WORK or next(tokens, None) is not None:
        detail = f"more than {_MAX_WORK} units of parsing (about one a token)"
        raise RefusedError(Reason.TOO_LONG, detail)
    if max(heaviest, work - work_at_statement) > _MAX_STATEMENT_WORK:
        detail = f"a statement of more than {_MAX_STATEMENT_WORK} units of parsing"
        raise RefusedError(Reason.TOO_LONG, detail)
    return [*pieces, code[start:]], work


def _refuse_digits(code: str, token: re.Match[str]) -> None:
    """Refuse an integer that a new Python process does not read, whatever this one would."""
    around = code[max(0, token.start() - 1) : token.start()] + code[token.end() : token.end() + 1]
    digits = token[0].replace("_", "")
    if digits.isdecimal() and len(digits) > _MAX_DIGITS and "." not in around:
        at = place(code, token.start())
        detail = f"{at}: an integer of {len(digits)} digits; Python reads {_MAX_DIGITS}"
        raise RefusedError(Reason.SYNTAX, detail)


def _weight(kind: str | None, token: str) -> int:
    """Units of work that CPython 3.11 spends on what takes it more than linear time."""
    if kind == "wide":  # identifiers are normalised (NFKC)
        return 4 + len(token) ** 2 // 1000
    num_fields = token.count("{")  # each is parsed on its own, and located by a scan from the start
    return 1 + 7 * num_fields + num_fields * len(token) // 2000


@contextmanager
def _quiet_interpreter() -> Generator[None]:
    """Keep warnings (invalid escapes) and garbage collection out of a parse.

    A warning would reach the log, and raise where warnings are errors. A collection would walk the
    heap of the whole actor, because a parse allocates enough to trigger one. Both settings belong
    to the process, hence the lock.
    """
    with _INTERPRETER, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()


def _parse(piece: str, num_lines_before: int) -> bool:
    """Parse whole statements; returns whether they are trivial, refuses what is no Python."""
    try:
        tree = ast.parse(piece)
    except SyntaxError as error:
        line, column = _place_of(error, piece)
        detail = f"{line + num_lines_before}:{column}: {error.msg}"
        raise RefusedError(Reason.SYNTAX, detail) from None
    except (MemoryError, RecursionError) as error:
        detail = f"the parser gave up on the nesting ({type(error).__name__})"
        raise RefusedError(Reason.DEADLINE, detail) from None
    return all(
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Name))
        for node in tree.body
    )


def _place_of(error: SyntaxError, piece: str) -> tuple[int, int]:
    """Line and column of a syntax error, from 1; by tree-sitter where `ast` gives no column.

    Inside an f-string the offset of `ast` counts in an expression that it has rewritten.
    """
    line, column = error.lineno or 1, error.offset or 1
    if not error.msg.startswith("f-string: ") or error.text == piece.split("\n")[line - 1] + "\n":
        return line, column
    if len(piece) > _MAX_PLACE_CHARS:
        return line, 1
    node = tree_sitter.Parser(_LANGUAGE).parse(piece.encode()).root_node
    while (inner := next((n for n in node.children if n.has_error), None)) is not None:
        node = inner
    return (node.start_point.row + 1, node.start_point.column + 1) if node.has_error else (line, 1)


def place(code: str, offset: int) -> str:
    """`line:column` of a character, both from 1."""
    return f"{code.count(chr(10), 0, offset) + 1}:{offset - code.rfind(chr(10), 0, offset)}"
