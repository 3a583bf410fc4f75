"""The report of a run that goes on: written beside the steps, never in their way."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rl.base.best_effort import BestEffort
from rl.run.directory import RunDirectory

if TYPE_CHECKING:
    from rl.report.page import Report


class LiveReport:
    """Rewrites `report.html` in a thread of its own; on exit it writes the last one.

    A report that cannot be written is no reason to end a run; one that the end of the run could
    write after all is complete.
    """

    def __init__(self, directory: Path, every: int, effort: BestEffort) -> None:
        """`every`: steps between rewrites; 0 writes on exit only."""
        self._dir = directory
        self._every = every
        self._effort = effort
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="report")
        self._report: Report | None = None
        self._writing: Future[None] | None = None

    def __enter__(self) -> LiveReport:
        return self

    def after_step(self, step: int) -> None:
        """Rewrite the page where it is due, unless the last rewrite is not done yet."""
        if self._every and step % self._every == 0 and self._collect():
            self._writing = self._thread.submit(self._write, live=True)

    def __exit__(self, *_: object) -> None:
        """Write what the run has left, whatever ended it."""
        with self._thread:
            last = self._thread.submit(self._write, live=False)
        self._collect()
        self._effort.complete(RunDirectory(self._dir).report.name)  # the last one has it all
        self._writing = last
        self._collect()

    def _write(self, *, live: bool) -> None:
        if not RunDirectory(self._dir).metrics.is_file():
            return  # the run has ended before its first step
        if self._report is None:
            from rl.report.page import Report  # noqa: PLC0415 - loads Bokeh, here beside the steps

            self._report = Report(self._dir)
        self._report.write(live=live)

    def _collect(self) -> bool:
        """Whether nothing is being written; says what went wrong with what was."""
        if self._writing is None:
            return True
        if not self._writing.done():
            return False
        with self._effort.trying(RunDirectory(self._dir).report.name):
            self._writing.result()
        return True
