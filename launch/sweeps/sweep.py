"""A sweep: each job in a process, a Ray namespace and a run directory of its own.

Jobs run one after the other where the command starts Ray itself, and as Ray jobs side by side on a
cluster, as far as it holds them. A job that fails leaves the others alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from actors.plan.shipped import with_shipped_models
from conf.errors import UserError
from conf.schema import DEFAULT_NAME, Config
from conf.validate import to_dict
from launch.common.overrides import override
from launch.sweeps.report import Figures, Row, draw, read_figures, write_report
from rl.base.console import Console
from rl.base.files import replace_file
from rl.run.directory import RunDirectory
from rl.run.start.changes import OF_THE_CALL
from rl.run.start.claim import settle_resume
from rl.run.start.lock import locked

_LABEL_CHARS = 100
_STOP_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a sweep."""

    number: int
    swept: Mapping[str, str]  # the keys that the sweep varies, with the values of this job
    overrides: tuple[str, ...]  # the command line of the run
    config: Config

    @property
    def directory(self) -> Path:
        """Its run directory."""
        return self.run.root

    @property
    def run(self) -> RunDirectory:
        """The paths of its run."""
        return RunDirectory.of(self.config)

    def __str__(self) -> str:
        """Number and swept values, for messages."""
        return f"job {self.number} ({describe(self.swept)})"


class Process(Protocol):
    """A job that has been started."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        ...

    def stop(self) -> None:
        """Ask it to end, as SIGTERM does."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def last_line(self) -> str:
        """The last line that it wrote; of its errors, if there are any."""
        ...


class Runner(Protocol):
    """Where the jobs run."""

    def fits(self, config: Config, running: Sequence[Config]) -> bool:
        """Whether this job can start beside those that run."""
        ...

    def start(self, overrides: Sequence[str], directory: Path) -> Process:
        """Start a run with these overrides; `directory` is its run directory."""
        ...


def describe(swept: Mapping[str, str]) -> str:
    """The swept values as one writes them.

    >>> describe({"seed": "0", "policy.lr": "1e-05"})
    'seed=0 policy.lr=1e-05'
    """
    return " ".join(f"{key}={value}" for key, value in swept.items())


def label(number: int, swept: Mapping[str, str]) -> str:
    """The last part of the name of a job: free of what an override would have to quote.

    >>> label(3, {"seed": "0", "policy.lr": "1e-05"})
    '3-seed_0-lr_1e-05'
    """
    parts = [f"{key.rpartition('.')[2]}_{value}" for key, value in swept.items()]
    text = "-".join([str(number), *parts])
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:_LABEL_CHARS]


def plan(
    swept_J: Sequence[Mapping[str, str]],
    overrides_J: Sequence[Sequence[str]],
    configs_J: Sequence[Config],
    kind: str = "sweep",
    first: int = 0,
) -> list[Job]:
    """Jobs with names, and so run directories, of their own; J is the number of jobs.

    Numbers start at `first`. The names are `<name>-<kind>/<number>-<values>`.
    """
    jobs: list[Job] = []
    for number, (swept, lines, config) in enumerate(
        zip(swept_J, overrides_J, configs_J, strict=True), first
    ):
        base = DEFAULT_NAME if "name" in swept else config.name
        name = f"{base}-{kind}/{label(number, swept)}"
        own = (override("name", name), override("output_dir", config.output_dir))
        named = replace(config, name=name)
        jobs.append(Job(number=number, swept=swept, overrides=(*lines, *own), config=named))
    return jobs


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    status: Literal["done", "failed", "stopped"]
    error: str = ""


def is_finished(job: Job) -> bool:
    """Whether a sweep has seen the end of a run with this very configuration in its directory."""
    try:
        stored = json.loads(job.run.finished.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return stored == _record(job) and job.run.summary.is_file()


def _record(job: Job) -> dict[str, Any]:
    """What the job computes; the run's own `config.yaml` has paths of the tree that it ran in."""
    plain = json.loads(json.dumps(to_dict(job.config)))
    return {key: value for key, value in plain.items() if key not in OF_THE_CALL}


class Sweep:
    """Jobs, how they ended, and the report on them in `directory`."""

    def __init__(self, runner: Runner, directory: Path, poll_s: float = 0.5) -> None:
        self._runner = runner
        self.directory = directory
        self._poll_s = poll_s
        self._jobs: list[Job] = []
        self._outcomes: dict[int, Outcome] = {}

    def run(self, jobs: Sequence[Job]) -> dict[int, Outcome]:
        """Run these jobs, beside those of earlier calls; how each ended, by number.

        A job with `resume=auto` that has finished before is not run again. SIGINT and SIGTERM end
        the jobs that run, and start no other.

        Raises:
            UserError: before any starts, where one cannot go on with what is in its directory.
            KeyboardInterrupt: after such a signal, when every job is gone.
        """
        self._jobs += jobs
        waiting = [job for job in jobs if not self._skip(job)]
        _settle(waiting)
        running: dict[int, tuple[Job, Process]] = {}
        with _stoppable_pauses() as pause:
            try:
                while waiting or running:
                    self._start_what_fits(waiting, running)
                    pause(self._poll_s)
                    self._collect(running)
            except BaseException:  # a job that nobody watches any more must not go on
                self._stop(running)
                raise
        return {job.number: self._outcomes[job.number] for job in jobs}

    def final(self, job: Job) -> float | None:
        """Held-out pass@1 of the policy that a finished job has trained."""
        return read_figures(job.directory).final

    @property
    def failed(self) -> list[str]:
        """A line for every job that failed: which, why, where its output is."""
        return [
            f"{job}: {outcome.error} ({job.directory})"
            for job in self._jobs
            if (outcome := self._outcomes.get(job.number)) and outcome.status == "failed"
        ]

    def _skip(self, job: Job) -> bool:
        if job.config.resume != "auto" or not is_finished(job):
            return False
        self._outcomes[job.number] = Outcome("done")
        _say(f"{job} is finished already")
        return True

    def _start_what_fits(self, waiting: list[Job], running: dict[int, tuple[Job, Process]]) -> None:
        """A job that fits nowhere is started when nothing else runs: it reports that itself."""
        configs = [job.config for job, _ in running.values()]
        while waiting and (not running or self._runner.fits(waiting[0].config, configs)):
            job = waiting.pop(0)
            _say(f"{job} starts in {job.directory}")
            job.run.finished.unlink(missing_ok=True)
            running[job.number] = (job, self._runner.start(job.overrides, job.directory))
            configs.append(job.config)

    def _collect(self, running: dict[int, tuple[Job, Process]]) -> None:
        for number, (job, process) in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[number]
            outcome = Outcome("done")
            if code == 0:
                replace_file(job.run.finished, json.dumps(_record(job)))
            else:
                why = process.last_line() or "it wrote nothing"
                outcome = Outcome("failed", f"exit code {code}: {why}")
            self._outcomes[number] = outcome
            _say(f"{job} {outcome.status}{': ' if outcome.error else ''}{outcome.error}")
            self._report()  # so that the table can be read while the sweep runs

    def _stop(self, running: Mapping[int, tuple[Job, Process]]) -> None:
        """Ask all of them first, then wait: Ray and Slurm do not leave a sweep much time."""
        for number, (job, process) in running.items():
            _say(f"{job} is stopped")
            with contextlib.suppress(OSError, RuntimeError):  # the others are asked all the same
                process.stop()
            self._outcomes[number] = Outcome("stopped")
        deadline = time.monotonic() + _STOP_DEADLINE_S
        for _, process in running.values():
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(self._poll_s)
            if process.poll() is None:
                process.kill()

    def finish(self) -> str:
        """Write the whole report; the text of its tables."""
        draw(self.directory, self._rows())
        return self._report()

    def _report(self) -> str:
        return write_report(self.directory, self._rows())

    def _rows(self) -> list[Row]:
        return [self._row(job) for job in self._jobs]

    def _row(self, job: Job) -> Row:
        outcome = self._outcomes.get(job.number)
        done = outcome is not None and outcome.status == "done"
        return Row(
            number=job.number,
            swept=dict(job.swept),
            directory=str(job.directory),
            status=outcome.status if outcome else "not run",
            error=outcome.error if outcome else "",
            figures=read_figures(job.directory) if done else Figures(),
        )


def _settle(jobs: Sequence[Job]) -> None:
    """Make the directories ready in which jobs go on; `output.log` is there before a job is."""
    console, faults = Console(), list[str]()
    for job in jobs:
        if job.config.resume != "auto" or not job.directory.is_dir():
            continue
        try:
            with locked(job.directory, console.warn):
                settle_resume(with_shipped_models(job.config), console, check=lambda: None)
        except UserError as error:
            faults += [f"{job}: {fault}" for fault in str(error).splitlines()]
    if faults:
        raise UserError("\n".join(faults))


@contextlib.contextmanager
def _stoppable_pauses() -> Iterator[Callable[[float], None]]:
    """Yield a sleep that raises KeyboardInterrupt after Ctrl-C, or SIGTERM of `ray job stop`.

    Anywhere else the first signal waits for the next pause: one that came while a job starts would
    leave it running with nobody to stop it. A second signal is obeyed at once.
    """
    received: list[int] = []

    def on_signal(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        if received:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as a shell starts what runs in the background
            signal.signal(number, on_signal)
    try:
        yield pause
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    sys.stdout.write(f"==> {text}\n")
    sys.stdout.flush()
