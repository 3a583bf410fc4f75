"""Fences: a text that somebody else wrote, as one block that nothing in it can close."""

from __future__ import annotations

import re


def fenced(text: str, tag: str) -> str:
    """A text as a block with a tag, as a rule its language; the fence is longer than any in it.

    >>> fenced("x = '```'", "python").splitlines()[0]
    '````python'
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{tag}\n{text}\n{fence}"
