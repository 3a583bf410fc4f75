"""How faults of data files are shown: short values, and lists that end."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

MAX_FAULTS_SHOWN = 20

_SHORT = reprlib.Repr()
_SHORT.maxstring = 60


def show(value: object) -> str:
    """Show a value of any size in one short ASCII line.

    >>> show("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode("ascii")


def listing(faults: Sequence[str], num_faults: int | None = None) -> str:
    """One fault a line, and how many more there are; `num_faults` when not all were kept."""
    shown = list(faults[:MAX_FAULTS_SHOWN])
    rest = (num_faults or len(faults)) - len(shown)
    if rest > 0:
        shown.append(f"... and {rest} more")
    return "\n".join(shown)
