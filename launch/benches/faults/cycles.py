"""Runs that start and stop, again and again, each stopped at a moment by chance: what they leave.

Every third ends by itself. What one may leave is what the next takes away: the mark of its Ray
session, with the session. So the last leaves no more than the first.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conf.errors import EngineError
from launch.benches.faults.faults import MARK, processes
from launch.benches.faults.runs import end_all, run_small
from launch.benches.faults.samples import count_files
from rl.base.console import Console

_SHORT = (
    *("algorithm.num_steps=1", "algorithm.group_size=2", "data.num_eval=2"),
    *("evaluation.every=0", "evaluation.num_samples=1", "overwrite=true"),
)
_BY_ITSELF = 3  # of so many runs one
_LAST_S = 30.0  # the latest moment of a signal
_SHARED = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is there after a run has ended."""

    processes: int  # of the run
    temporary_files: int  # sessions of Ray left out
    sessions: int  # of Ray
    shared: int  # files in /dev/shm that were not there before, of the whole machine


def measure_cycles(num: int, seed: int) -> None:
    """Start and stop `num` runs, and print what the first and the last of them have left.

    Raises:
        EngineError: when a run did not end, left a process, or the last left more than the first.
    """
    console = Console()
    rng = random.Random(f"cycles {seed}")
    scratch = Path(tempfile.mkdtemp(prefix="cycles-", dir="/tmp"))  # sockets take short paths
    temporary = scratch / "t"
    temporary.mkdir()
    before = set(_SHARED.iterdir())
    found: list[Left] = []
    try:
        for number in range(num):
            how = rng.choice((signal.SIGINT, signal.SIGTERM))
            stop = None if number % _BY_ITSELF == 0 else (rng.uniform(0.0, _LAST_S), how)
            found.append(_cycle(scratch, temporary, stop, before))
            said = "ended by itself" if stop is None else f"{how.name} after {stop[0]:.1f} s"
            console.say(f"{number + 1}/{num}: {said}; left: {found[-1]}")
        rows = [
            (name, str(getattr(found[0], name)), str(getattr(found[-1], name)))
            for name in Left.__slots__
        ]
        console.table(f"{num} starts and stops", rows, ("left", "by the first", "by the last"))
        kept = [(left.temporary_files, left.sessions) for left in (found[0], found[-1])]
        if any(left.processes for left in found) or kept[0] != kept[1]:
            raise EngineError("a run has left what the next does not take away")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _cycle(
    cwd: Path, temporary: Path, stop: tuple[float, signal.Signals] | None, before: set[Path]
) -> Left:
    mark = uuid.uuid4().hex
    more: Mapping[str, str] = {"TMPDIR": str(temporary), MARK: mark}
    try:
        ended = run_small(cwd, (), _SHORT, environment=more, stop=stop)
        if ended.code is None or (stop is None and ended.code != 0):
            raise EngineError(f"the run ended with {ended.code}: {ended.reason}")
        sessions = (temporary / "ray").glob("session_*")
        return Left(
            processes=len(processes(mark)),
            temporary_files=count_files(temporary),
            sessions=sum(not path.is_symlink() for path in sessions),
            shared=len(set(_SHARED.iterdir()) - before),
        )
    finally:
        end_all(mark)
