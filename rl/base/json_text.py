"""JSON that people hand in: whatever is wrong with it has a place and a rule."""

from __future__ import annotations

import json
import math
from typing import Any


class JsonFault(ValueError):
    """Text that is no JSON: the rule, with the line and the column (from 1) that break it."""

    def __init__(self, rule: str, line: int, column: int) -> None:
        super().__init__(rule)
        self.line = line
        self.column = column


def parse_json(raw: bytes, *, finite: bool = False) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return what the text holds; JsonFault where it is not UTF-8, or not JSON.

    `finite` refuses NaN, Infinity and numbers beyond a float: what is echoed must be JSON again.

    >>> parse_json(b'{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    number = _finite if finite else None
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=number, parse_float=number)
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        column = error.start - before.rfind(b"\n")
        raise JsonFault("not UTF-8", before.count(b"\n") + 1, column) from error
    except json.JSONDecodeError as error:
        raise JsonFault(f"not JSON ({error.msg})", error.lineno, error.colno) from error
    except (ValueError, RecursionError) as error:  # a number or a nesting without end
        raise JsonFault(f"not JSON ({error})", 1, 1) from error


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a number of JSON")
    return value
