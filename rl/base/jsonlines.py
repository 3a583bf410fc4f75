"""JSON lines: files that grow a line at a time, and that a kill leaves with a torn last one.

A line is a line once its end is written. What follows the last end was torn by a kill, or is being
written just now: readers leave it out, and the next writer cuts it off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from conf.errors import DataError
from rl.base.files import lack_of, replacing, write_all
from rl.base.json_text import JsonFault, parse_json

_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file."""

    place: str  # file:line, numbered from 1
    raw: bytes  # with its end
    value: Any  # what it holds

    @property
    def fields(self) -> dict[str, Any]:
        """What an object holds; nothing where the line is none."""
        value: object = self.value
        return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the whole lines of a file, none where there is no file.

    Raises DataError `file:line:column: rule` for a line that is no JSON.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.endswith(b"\n"):
                yield Line(f"{path}:{number}", raw, _parse(f"{path}:{number}", raw))


def append_lines(path: Path, values: Iterable[object]) -> None:
    """Add a line for each value; on return they are on the disk, and where it raises none is."""
    text = "".join(map(as_line, values)).encode("ascii")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        end = _cut_torn(file)
        try:
            write_all(file, text)
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)  # else a second try would leave some lines twice
            raise


def keep_lines(path: Path, keep: Callable[[Line], bool]) -> None:
    """Drop the other lines, and a torn one; nothing is written where all of a file is kept."""
    if not path.is_file():
        return
    if sum(len(line.raw) for line in read_lines(path) if keep(line)) == path.stat().st_size:
        return
    with replacing(path) as staged, staged.open("wb") as file:
        file.writelines(line.raw for line in read_lines(path) if keep(line))


def as_line(value: object) -> str:
    r"""A value as a line of ASCII, with its end.

    >>> as_line({"step": 1})
    '{"step": 1}\n'
    """
    return json.dumps(value) + "\n"


def given_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and text of each line of a file that a person hands in as `input`.

    Blank lines are no lines, and the last one needs no end. Raises DataError where there is no
    file.
    """
    if (lack := lack_of(path)) is not None:
        raise DataError(f"input: {path} {lack}; give input=FILE with one JSON object per line")
    with path.open("rb") as file:
        yield from ((number, raw) for number, raw in enumerate(file, start=1) if raw.strip())


def _parse(place: str, raw: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return parse_json(raw)
    except JsonFault as fault:
        raise DataError(f"{place}:{fault.column}: {fault}") from fault


def _cut_torn(file: IO[bytes]) -> int:
    """Cut off what follows the last end of a line; returns where the file ends then."""
    end = size = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        file.truncate(end)
    return end
