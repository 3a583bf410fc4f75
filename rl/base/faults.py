"""How faults of data files are shown: short values, and lists that end."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence

MAX_FAULTS_SHOWN = 20

_SHORT = reprlib.Repr()
_SHORT.maxstring = 60


def show(value: object) -> str:
    """Show a value of any size in one short ASCII line.

    >>> show("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode("ascii")


def held_twice(place: object, found: Sequence[str], wanted: Iterable[str]) -> dict[str, str]:
    """Wanted columns that a table has more than once, so that nobody knows which is meant: faults.

    >>> held_twice("a.parquet", ["id", "prompt", "id", "note", "note"], ["id", "prompt"])
    {'id': 'a.parquet:-:id: the column is there more than once; keep one of them'}
    """
    times = Counter(found)
    return {
        name: f"{place}:-:{name}: the column is there more than once; keep one of them"
        for name in wanted
        if times[name] > 1
    }


def listing(faults: Sequence[str], num_faults: int | None = None) -> str:
    """One fault a line, and how many more there are; `num_faults` when not all were kept."""
    shown = list(faults[:MAX_FAULTS_SHOWN])
    rest = (num_faults or len(faults)) - len(shown)
    if rest > 0:
        shown.append(f"... and {rest} more")
    return "\n".join(shown)
