"""Typed access to the columns of one raw row; every fault is kept, none ends the reading.

A fault is shown as `file:row:column: rule (value)`. Rows of JSON lines are counted from 1, as lines
are; rows of a JSON array or of a columnar file from 0.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeVar, cast

from rl.base.faults import show
from rl.base.process import read_big_integers
from rl.types import Message, Prompt

read_big_integers()

T = TypeVar("T")

MAX_LITERAL_CHARS = 64 << 20  # the tree of a Python literal is many times as large as its text


class RuleError(ValueError):
    """A value breaks a rule of its column; the message is `rule (value)`."""

    def __init__(self, rule: str, value: object) -> None:
        super().__init__(f"{rule} ({show(value)})")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sound row that is no problem for us, such as one for another language."""

    why: str


@dataclass(slots=True)
class Row:
    """One raw row and its faults.

    >>> row = Row("mbpp.jsonl", 3, {"text": None})
    >>> row.text("text"), row.faults
    ('', ['mbpp.jsonl:3:text: must be text that is not empty (None)'])
    """

    file: str
    number: int
    values: Mapping[str, Any]
    subset: str | None = None  # part of the data set that the file belongs to
    faults: list[str] = field(default_factory=list[str])

    def has(self, column: str) -> bool:
        """True when the column is there and not null."""
        return self.values.get(column) is not None

    def first_of(self, *columns: str) -> str:
        """The first of `columns` that has a value, or else `columns[0]`."""
        return next((column for column in columns if self.has(column)), columns[0])

    def text(self, column: str) -> str:
        """The text of a column that must have one; empty after a fault."""
        return self.read(column, filled_text) or ""

    def read(self, column: str, parse: Callable[[Any], T]) -> T | None:
        """What `parse` makes of a column that must be there; None after a fault."""
        if column not in self.values:
            self.add_fault(column, f"the column is missing (found: {', '.join(self.values)})")
            return None
        try:
            return parse(self.values[column])
        except RuleError as error:
            self.add_fault(column, str(error))
            return None

    def read_optional(self, column: str, parse: Callable[[Any], T], default: T) -> T:
        """As `read`, but `default` when the column is missing or null."""
        if not self.has(column):
            return default
        parsed = self.read(column, parse)
        return default if parsed is None else parsed

    def add_fault(self, column: str, rule: str) -> None:
        """Keep a fault; `rule` ends with the value in brackets."""
        self.faults.append(f"{self.file}:{self.number}:{column}: {rule}")


def problem(  # noqa: PLR0913 - the columns of a canonical row
    *,
    id: str,
    request: str,
    tests: str,
    entry_point: str | None,
    source: str,
    meta: Mapping[str, Any],
) -> Prompt:
    """A problem with one user turn; empty values of `meta` are left out."""
    kept = {name: value for name, value in meta.items() if value not in (None, "", [], {})}
    return Prompt(
        id=id,
        messages=(Message("user", request),),
        tests=tests,
        entry_point=entry_point,
        source=source,
        meta=json.dumps(kept, default=str),
    )


def digest(text: str) -> str:
    """Name a problem that was published without an id: by its statement, spaces aside."""
    return blake2b(" ".join(text.split()).encode(), digest_size=8).hexdigest()


# --- parsers of one value; each raises RuleError ------------------------------------------------


def any_text(value: object) -> str:
    """A string that UTF-8 can hold."""
    if not isinstance(value, str):
        raise RuleError("must be text", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can escape halves of a surrogate pair
        raise RuleError("must be text that UTF-8 can encode", value) from error
    return value


def filled_text(value: object) -> str:
    """A string with more than white space."""
    if not isinstance(value, str) or not value.strip():
        raise RuleError("must be text that is not empty", value)
    return any_text(value)


def id_text(value: object) -> str:
    """A string or an integer, as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return filled_text(value)


def texts(value: object) -> list[str]:
    """A list of strings."""
    return [any_text(item) for item in as_list(value)]


def filled_texts(value: object) -> list[str]:
    """A list of one or more strings, none of them empty."""
    items = [filled_text(item) for item in as_list(value)]
    if not items:
        raise RuleError("must be a list that is not empty", value)
    return items


def as_list(value: object) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise RuleError("must be a list", value)
    return cast("list[Any]", value)


def as_dict(value: object) -> dict[str, Any]:
    """A mapping."""
    if not isinstance(value, dict):
        raise RuleError("must be a JSON object", value)
    return cast("dict[str, Any]", value)


def from_json(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a JSON text; what a columnar file has parsed already is passed on."""
    if not isinstance(value, str):
        if isinstance(value, (list, dict)):
            return cast("Any", value)
        raise RuleError("must be JSON text", value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RuleError(f"must be JSON: {error}", value) from error


def from_json_or_literal(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """As `from_json`, or a Python literal, which some data sets hold instead. Nothing is run."""
    try:
        return from_json(value)
    except RuleError:
        if not isinstance(value, str) or len(value) > MAX_LITERAL_CHARS:
            raise
        try:
            return ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pass
        raise
