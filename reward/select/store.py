"""What was found out about the programs of each problem, on the disk.

It is on the disk before it counts, and is not found out again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Generic, TypeVar

from conf.errors import DataError
from reward.select.best_of_n import Evidence
from reward.select.verdicts import Verdicts
from rl.base.jsonlines import Line, append_lines, read_lines
from rl.run.evaluation_store import SampleRow, Settings

Found = TypeVar("Found", Evidence, Verdicts)


class FoundStore(Generic[Found]):
    """Records on disk: one file for each combination of settings, a line for each problem."""

    def __init__(self, record: type[Found], directory: Path, settings: Settings) -> None:
        self._record = record
        name = record.__name__.lower()
        self.path = directory / f"{name}-{_digest(json.dumps(dict(settings)))}.jsonl"

    def finished(
        self, samples: Mapping[str, Sequence[SampleRow]], timed: Collection[str] = ()
    ) -> dict[str, Found]:
        """Records by problem id, of the problems whose programs are still the same.

        Those of the problems in `timed` count only with the seconds of their stages.

        Raises:
            DataError: with `file:line` for a line that is no such record.
        """
        found = {record.problem_id: record for record in map(self._read, read_lines(self.path))}
        return {
            name: found[name]
            for name, rows in samples.items()
            if name in found
            and found[name].codes == codes_digest(rows)
            and (name not in timed or found[name].seconds is not None)
        }

    def append(self, record: Found) -> None:
        """Add what was found out about one problem."""
        append_lines(self.path, [asdict(record)])

    def _read(self, line: Line) -> Found:
        try:
            return self._record(**line.value)
        except TypeError as error:
            raise DataError(
                f"{line.place}:-: not {self._record.__name__.lower()} of a best-of-n ({error}); "
                "move the file away"
            ) from error


def evidence_store(
    directory: Path, settings: Settings, *, anew: bool = False
) -> FoundStore[Evidence]:
    """What selectors see; `anew` drops what is there."""
    return _opened(FoundStore(Evidence, directory, settings), anew=anew)


def verdicts_store(
    directory: Path, settings: Settings, *, anew: bool = False
) -> FoundStore[Verdicts]:
    """What a language model said; `anew` drops what is there."""
    return _opened(FoundStore(Verdicts, directory, settings), anew=anew)


def _opened(store: FoundStore[Found], *, anew: bool) -> FoundStore[Found]:
    if anew:
        store.path.unlink(missing_ok=True)
    return store


def codes_digest(rows: Sequence[SampleRow]) -> str:
    """Identity of the programs of one problem, and of the problem."""
    return _digest(json.dumps([[row.problem, row.code] for row in rows]))


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
