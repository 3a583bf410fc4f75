"""One source, converted: problems come one by one, faults come together at the end."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from conf.errors import DataError
from rl.base.faults import MAX_FAULTS_SHOWN, listing, show
from rl.problems.datasets.files import read_rows
from rl.problems.datasets.hub import Selection, raw_files
from rl.problems.datasets.registry import Source, source_named
from rl.problems.datasets.rows import Row, Skipped, digest
from rl.types import Prompt

logger = logging.getLogger(__name__)

# A statement that says so is met by answers that differ from the one in the tests.
_SEVERAL = re.compile(
    r"\b(?:if there (?:are|is|exist|exists) (?:multiple|several|many|more than one|various)"
    r"|(?:print|output|return|find|choose|give|report) any (?:one )?"
    r"(?:of|valid|such|possible|correct)"
    r"|any (?:of them|valid answer|valid solution|correct answer|solution is accepted)"
    r"|(?:multiple|several) (?:possible |valid |correct )?(?:answers|solutions)"
    r"|more than one (?:possible |valid |correct )?(?:answer|solution)"
    r"|in any order)\b",
    re.IGNORECASE,
)
_REPEATED = "repeats of an earlier problem"


@dataclass(slots=True)
class Tally:
    """What became of the rows that are no problem now."""

    num_rows: int = 0
    num_bad_rows: int = 0
    num_faults: int = 0
    faults: list[str] = field(default_factory=list[str])  # the first ones
    num_several: int = 0  # problems that say that more answers than one are right
    skipped: Counter[str] = field(default_factory=Counter[str])  # rows by the reason

    def add_bad_row(self, faults: Sequence[str]) -> None:
        """Count a row and keep its faults while there are few."""
        self.num_bad_rows += 1
        self.num_faults += len(faults)
        self.faults += faults[: max(0, MAX_FAULTS_SHOWN - len(self.faults))]


def iter_problems(
    source: Source, selection: Selection, max_bad_rows: int = 0, tally: Tally | None = None
) -> Iterator[Prompt]:
    """Yield the problems of a source, in the order of its rows.

    A problem that comes twice is yielded once. Up to `max_bad_rows` bad rows are skipped with a
    warning that lists them.

    Raises:
        DataError: after the last row, with all faults as `file:row:column: rule (value)`, when
            there are more bad rows, or when no problem is left; before the first row, when there
            is no file to read.
    """
    tally = tally or Tally()
    seen: dict[str, tuple[str, str]] = {}
    for file in raw_files(source, selection):
        for row in read_rows(file, source.columns):
            tally.num_rows += 1
            prompt = None if row.faults else source.read(row)
            if isinstance(prompt, Skipped):
                tally.skipped[prompt.why] += 1
            elif prompt is not None and _is_new(prompt, row, source.id_column, seen, tally):
                tally.num_several += accepts_several(prompt.question)
                yield prompt
            if row.faults:
                tally.add_bad_row(row.faults)
    _judge(source, tally, max_bad_rows, len(seen))


def accepts_several(question: str) -> bool:
    """Whether a statement says that more than one answer is right, so that it needs a checker.

    >>> accepts_several("If there are multiple answers, print any of them.")
    True
    """
    return _SEVERAL.search(question) is not None


def read_problems(source: str, path: str | Path | None, max_bad_rows: int = 0) -> list[Prompt]:
    """Read one published data set from a local file, a directory or the hub (None: its own id).

    Raises:
        UserError: for an unknown source.
        DataError: see `iter_problems`.
    """
    selection = Selection(path=None if path is None else str(path))
    return list(iter_problems(source_named(source), selection, max_bad_rows))


def split_by_id(prompts: Sequence[Prompt], eval_share: float) -> tuple[list[Prompt], list[Prompt]]:
    """Training and held-out problems; a problem's side depends on nothing but its id."""
    held_out = [is_in_test_split(prompt, eval_share) for prompt in prompts]
    pairs = list(zip(prompts, held_out, strict=True))
    return [p for p, out in pairs if not out], [p for p, out in pairs if out]


def is_in_test_split(prompt: Prompt, eval_share: float) -> bool:
    """The side of a problem when `eval_share` of all are held out."""
    position = blake2b(prompt.id.encode(), digest_size=4).digest()
    return int.from_bytes(position, "big") < eval_share * 2**32


def _is_new(
    prompt: Prompt, row: Row, id_column: str | None, seen: dict[str, tuple[str, str]], tally: Tally
) -> bool:
    """True for an id that did not come before; another problem of a published id is a fault."""
    question = digest(prompt.question)
    if prompt.id not in seen:
        seen[prompt.id] = question, f"{row.file}:{row.number}"
        return True
    known, place = seen[prompt.id]
    if question == known or id_column is None or not row.has(id_column):
        tally.skipped[_REPEATED] += 1
    else:
        value = show(row.values[id_column])
        row.add_fault(id_column, f"must be unique; {place} has it for another problem ({value})")
    return False


def _judge(source: Source, tally: Tally, max_bad_rows: int, num_problems: int) -> None:
    shown = listing(tally.faults, tally.num_faults)
    if tally.num_bad_rows > max_bad_rows:
        raise DataError(
            f"{shown}\n{tally.num_bad_rows} bad row(s) of {tally.num_rows}, and max_bad_rows is "
            f"{max_bad_rows}: correct the rows, or raise data.max_bad_rows to skip them"
        )
    if not num_problems:
        reasons = ", ".join(f"{n} {why}" for why, n in tally.skipped.items()) or "no rows"
        raise DataError(f"source={source.name}: no problem is left ({reasons})")
    if tally.num_bad_rows:
        logger.warning("skipped %d bad row(s):\n%s", tally.num_bad_rows, shown)
