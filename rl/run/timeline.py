"""Timeline of a run: when its stages happened, as `timeline.json` for https://ui.perfetto.dev.

The file is a JSON array of trace events (Chrome's format; times in microseconds since 1970, so that
the parts of a resumed run line up). One event stands on one line, and the array is closed again
after each write, so that the file can be opened while the run goes on and after it was killed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rl.base.best_effort import BestEffort
from rl.base.files import replacing, write_all
from rl.base.json_text import JsonFault, parse_json
from rl.step import Batch
from rl.types import JudgedGroup, StepReport

STAGES = ("rollout", "score", "update", "publish", "evaluate", "probe", "checkpoint")
STAGES_PID, GROUPS_PID = 1, 2  # a "process" of the format is a heading, a "thread" is a row
_END = "\n]\n"

Event = dict[str, Any]


class Timeline:
    """A row for each stage, with a span per step; and a row for each place of a batch.

    The latter shows when the group was generated and when it was scored. Groups of one batch start
    together, and a batch starts after the one before is judged, so rows never overlap.
    """

    def __init__(self, path: Path, effort: BestEffort) -> None:
        self._path = path
        self._effort = effort
        self._num_rows = 0  # of groups that have a name

    def forget_after(self, step: int) -> None:
        """Begin the file, or take it up without the steps after `step`; what is torn is dropped."""
        self._num_rows = 0
        with (
            self._effort.trying(self._path.name),
            replacing(self._path) as staged,
            staged.open("w", encoding="ascii") as file,
        ):
            before = "[\n"
            for event in _events(self._path):
                if event["ph"] == "M" or event["args"]["step"] <= step:
                    file.write(before + json.dumps(event))
                    before = ",\n"
                    self._num_rows += event["pid"] == GROUPS_PID and event["name"] == "thread_name"
            file.write(_END)

    def step(self, report: StepReport, batch: Batch, published_s: float) -> None:
        """Add the spans of one step; `published_s` is the `time.time()` at which it had ended."""
        updated_s = published_s - report.metrics["time/publish_s"]
        spans = [
            *_sampling(batch),
            ("update", updated_s - report.metrics["time/update_s"], updated_s),
            ("publish", updated_s, published_s),
        ]
        events = [_stage(name, report.step, start, end) for name, start, end in spans]
        self._append([*events, *self._groups(report.step, batch)])

    @contextmanager
    def span(self, stage: str, step: int) -> Generator[None]:
        """Add a span of `stage` that lasts as long as the body; nothing when the body raises."""
        start_s = time.time()
        yield
        self._append([_stage(stage, step, start_s, time.time())])

    def _groups(self, step: int, batch: Batch) -> Iterable[Event]:
        """Two spans for each group, and a name for each row that is new."""
        for row in range(self._num_rows, len(batch.groups_P)):
            yield _name("thread_name", GROUPS_PID, row, f"group {row}")
        self._num_rows = max(self._num_rows, len(batch.groups_P))
        if batch.started_s is not None:
            for row, judged in enumerate(batch.groups_P):
                yield from _group(step, row, judged, batch.started_s)

    def _append(self, events: Sequence[Event]) -> None:
        """Write over the end of the array, in one call, so that no reader sees half an event."""
        text = "".join(f",\n{json.dumps(event)}" for event in events) + _END
        with self._effort.trying(self._path.name), self._path.open("r+b", buffering=0) as file:
            end = file.seek(-len(_END), os.SEEK_END)
            try:
                write_all(file, text.encode("ascii"))
            except OSError:
                file.truncate(end + len(_END))
                file.seek(end)
                write_all(file, _END.encode("ascii"))  # over what was there: takes no room
                raise


def _sampling(batch: Batch) -> Iterable[tuple[str, float, float]]:
    """Spans of sampling and scoring, where something was asked and it is known when."""
    if batch.groups_P and batch.started_s is not None:
        finished_s = [judged.group.finished_s for judged in batch.groups_P]
        yield "rollout", batch.started_s, max(finished_s)
        yield "score", min(finished_s), max(judged.scored_s for judged in batch.groups_P)


def _events(path: Path) -> Iterator[Event]:
    """The events of a file, without a last line that a crash has torn; headings where none are."""
    num = 0
    if path.exists():
        with path.open("rb") as file:
            next(file, None)  # the start of the array
            for line in file:
                try:
                    event: Event = parse_json(line.strip().rstrip(b","))
                except JsonFault:  # the end of the array, or a torn line
                    break
                num += 1
                yield event
    if not num:
        yield from _headings()


def _headings() -> Iterable[Event]:
    yield _name("process_name", STAGES_PID, 0, "stages")
    yield _name("process_name", GROUPS_PID, 0, "groups")
    for row, stage in enumerate(STAGES):
        yield _name("thread_name", STAGES_PID, row, stage)
        yield {**_name("thread_sort_index", STAGES_PID, row, ""), "args": {"sort_index": row}}


def _name(what: str, pid: int, row: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": row, "args": {"name": name}}


def _stage(stage: str, step: int, start_s: float, end_s: float) -> Event:
    return _span(stage, (STAGES_PID, STAGES.index(stage)), start_s, end_s, {"step": step})


def _group(step: int, row: int, judged: JudgedGroup, started_s: float) -> Iterable[Event]:
    group, place = judged.group, (GROUPS_PID, row)
    about = {"step": step, "prompt": group.prompt.id, "engine": group.engine}
    yield _span("generate", place, started_s, group.finished_s, about)
    yield _span("score", place, group.finished_s, judged.scored_s, {"step": step})


def _span(
    name: str, place: tuple[int, int], start_s: float, end_s: float, args: dict[str, Any]
) -> Event:
    """A complete event; clocks of two machines may disagree, but a span is never negative."""
    return {
        "ph": "X",
        "name": name,
        "pid": place[0],
        "tid": place[1],
        "ts": round(start_s * 1e6),
        "dur": max(0, round((end_s - start_s) * 1e6)),
        "args": args,
    }
