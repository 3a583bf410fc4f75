"""Results of a check: rows with one figure each and its bound, outcomes of parts, and all of them.

A part writes a row the moment it is known, as a line of JSON. Nothing heavy is imported here.
"""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rl.base.files import replace_json

Device = Literal["cuda", "cpu"]
_SAYS_ERROR = re.compile(r"error|exception|fatal|killed", re.IGNORECASE)
Status = Literal["good", "wrong", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, or the reason why there is none.

    >>> Row(part="head", what="gap", value=0.2, most=0.1).good
    False
    """

    part: str
    what: str
    value: float | None = None
    unit: str = ""
    most: float | None = None  # largest value that is good; None: a figure without a bound
    least: float | None = None  # smallest
    skipped: str = ""  # why there is no value

    @property
    def good(self) -> bool | None:
        """Whether the bound is kept; None without one. NaN keeps none."""
        if self.value is None or (self.most is None and self.least is None):
            return None
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    @property
    def bound(self) -> str:
        """The bound in words."""
        bounds = [("<=", self.most), (">=", self.least)]
        return ", ".join(f"{sign} {shown(value)}" for sign, value in bounds if value is not None)


def shown(value: float) -> str:
    """A figure with as many digits as one reads.

    >>> shown(123456.7), shown(12.345), shown(0.00012)
    ('123,457', '12.3', '1.2e-04')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.1e}"


class Recorder:
    """The rows of one part, written to its file and shown as they come."""

    def __init__(self, part: str, file: Path) -> None:
        self._part = part
        self._file = file

    def __call__(
        self,
        what: str,
        value: float,
        unit: str = "",
        *,
        most: float | None = None,
        least: float | None = None,
    ) -> None:
        """Record a figure."""
        self._write(Row(part=self._part, what=what, value=value, unit=unit, most=most, least=least))

    def skip(self, what: str, why: str) -> None:
        """Record that a figure is missing, and why."""
        self._write(Row(part=self._part, what=what, skipped=why))

    def _write(self, row: Row) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        sys.stdout.write(f"    {line_of(row)}\n")
        sys.stdout.flush()


def line_of(row: Row) -> str:
    """A row as one line of text."""
    if row.value is None:
        return f"{row.what}: left out, {row.skipped}"
    verdict = {None: "", True: f"  ({row.bound})", False: f"  WRONG: {row.bound} was expected"}
    return f"{row.what}: {shown(row.value)} {row.unit}".rstrip() + verdict[row.good]


def error_of(printed: str) -> str:
    """The line that names the error in what a process has printed on its way out.

    Its last traceback names it, but for those that Python prints of what it ignores at the end;
    without any, the last line that says so, or the last of all.

    >>> error_of("Traceback (most recent call last):\\n  File 'a', line 1\\nValueError: b\\nbye")
    'ValueError: b'
    """
    lines = printed.strip().splitlines()
    found, ignored, in_frames = "", False, False
    for line in lines:
        if line.startswith("Exception ignored"):
            ignored = True
        elif line.lstrip().startswith("File "):
            in_frames = True
        elif in_frames and line and not line[0].isspace():
            found = found if ignored else line
            in_frames = ignored = False
    said = [line for line in lines if _SAYS_ERROR.search(line)]
    return found or (said or lines or [""])[-1]


def read_rows(file: Path) -> list[Row]:
    """The rows that a part has written; a line that was cut off by its end is left out."""
    if not file.is_file():
        return []
    rows: list[Row] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(Row(**json.loads(line)))
        except ValueError:
            break
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one part."""

    name: str
    about: str
    status: Status  # `wrong`: a figure passes its bound; `failed`: it ended early
    seconds: float = 0.0
    why: str = ""  # it was skipped, or failed; the first line says it, others what was printed
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All parts, and where they ran."""

    made_on: str  # date
    device: Device
    machine: str  # GPUs and versions in a line
    budget_s: float
    seconds: float
    parts: tuple[Outcome, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing went wrong; what was skipped did not."""
        return all(part.status in ("good", "skipped") for part in self.parts)

    def save(self, file: Path) -> None:
        """Write it as JSON."""
        replace_json(file, asdict(self))
