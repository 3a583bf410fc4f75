"""Metric sinks of a run: `metrics.jsonl`, which has to work, and watchers, which never harm a run.

Watchers are the gauges of the dashboard and the trackers. Each has a thread of its own, so that no
server makes a step wait; one that fails is reported once and receives nothing more.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from actors.cluster.gauges import StepGauges, run_tags
from actors.observe.trackers import TRACKERS, RowSink, tracked_run
from conf.errors import in_one_line
from conf.schema import Config
from rl.base.best_effort import BestEffort
from rl.metrics import JsonlSink, Sink
from rl.run.directory import RunDirectory
from rl.run.rollouts import RolloutRow
from rl.types import StepReport

CLOSE_DEADLINE_S = 60.0  # how long the end of a run waits for its watchers, all together


class Watcher:
    """A sink on its own thread; the first error ends it."""

    def __init__(self, name: str, sink: Sink, effort: BestEffort) -> None:
        self._name = name
        self._sink = sink
        self._effort = effort
        self._began = False
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name=f"watcher-{name}", daemon=True)
        self._thread.start()

    def forget_after(self, step: int) -> None:
        """Pass this on to the sink soon; never raises."""
        self._began = True
        self._inbox.put(lambda: self._sink.forget_after(step))

    def write(self, report: StepReport) -> None:
        """Pass this on to the sink soon; never raises."""
        self._inbox.put(lambda: self._sink.write(report))

    def show(self, rows: Sequence[RolloutRow]) -> None:
        """Pass completions on to a sink that shows them, soon; never raises."""
        if isinstance(sink := self._sink, RowSink):
            self._inbox.put(lambda: sink.show(rows))

    def close(self, *, ok: bool) -> None:
        """Close the sink soon, if it has begun; `join` waits for it."""
        if self._began:
            self._inbox.put(lambda: self._sink.close(ok=ok))
        self._inbox.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait until everything has arrived; warn when that takes too long."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._effort.failed(self._name, "it has not taken the last steps in time")

    def _live(self) -> None:
        with self._effort.trying(self._name):
            while (call := self._inbox.get()) is not None:
                call()


class Watchers:
    """All sinks of a run as one; a context manager, whose exit passes on how the run ended."""

    def __init__(self, jsonl: JsonlSink, sinks: Mapping[str, Sink], effort: BestEffort) -> None:
        self._jsonl = jsonl
        self._effort = effort
        self._watchers = [Watcher(name, sink, effort) for name, sink in sinks.items()]

    def forget_after(self, step: int) -> None:
        """Drop what is known of steps after `step`."""
        self._jsonl.forget_after(step)
        for watcher in self._watchers:
            watcher.forget_after(step)

    def write(self, report: StepReport) -> None:
        """Take the metrics of one step; the line of `metrics.jsonl` is on disk when this returns.

        A line that a full disk does not take is warned of and tried again with the next one.

        Raises:
            KeyError: on a name that is not registered.
        """
        try:
            self._jsonl.write(report)
        except OSError as error:
            self._effort.failed(self._jsonl.name, in_one_line(str(error)))
        for watcher in self._watchers:
            watcher.write(report)

    def show(self, rows: Sequence[RolloutRow]) -> None:
        """Give watchers completions of one step, at least one, to show."""
        for watcher in self._watchers:
            watcher.show(rows)

    def flush(self) -> None:
        """See that every line of `metrics.jsonl` so far is on the disk, or raise OSError."""
        self._jsonl.flush()
        self._effort.complete(self._jsonl.name)

    def __enter__(self) -> Self:
        """Nothing starts here: a watcher starts with the first thing that it receives."""
        return self

    def __exit__(
        self,
        error: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every watcher, with one deadline for all."""
        with self._effort.trying(self._jsonl.name):
            self.flush()
        for watcher in self._watchers:
            watcher.close(ok=error is None)
        for watcher in self._watchers:
            watcher.join(CLOSE_DEADLINE_S / len(self._watchers))


def make_watchers(cfg: Config, directory: Path, effort: BestEffort) -> Watchers:
    """The sinks that the configuration of a run names."""
    run = tracked_run(cfg, directory)
    sinks: dict[str, Sink] = {name: TRACKERS[name](run) for name in cfg.trackers}
    sinks["the dashboard"] = StepGauges(run_tags(cfg.experiment, cfg.name))
    return Watchers(JsonlSink(RunDirectory(directory).metrics), sinks, effort)
