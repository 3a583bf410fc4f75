"""A fault: which process is hit, in which phase of which step, and how; or a disk that is full."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from actors.cluster.processes import processes_with
from conf.errors import EngineError

Target = Literal["driver", "rollout", "reward", "policy", "sandbox", "raylet", "gcs", "disk"]
Phase = Literal["startup", "rollout", "score", "update", "publish", "checkpoint", "evaluation"]

MARK = "CODESCALER_FAULTS_ID"  # in the environment of all processes of one run
STRUCK = "saboteur: "  # begins the line that a fault writes
# What stands in the command of a process; Ray names its workers after the actor.
_TITLES: dict[Target, tuple[str, ...]] = {
    "driver": ("faults.saboteur",),
    "rollout": ("RolloutActor",),
    "reward": ("RewardModelActor",),
    "policy": ("TrainActor",),
    "sandbox": ("bwrap", "reward/sandbox"),
    "raylet": ("raylet/raylet",),
    "gcs": ("gcs/gcs_server",),
    "disk": (),
}
_START_S = 20.0  # in which a process of a run appears
_FULL_S = 1.0  # that a disk stays full: about a step and what is written after it
_CHUNK_BYTES = 2**20
_ACTORS = (*_TITLES["rollout"], *_TITLES["reward"], *_TITLES["policy"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One process that is hit once, or a disk that is full for some seconds."""

    target: Target
    phase: Phase
    step: int
    number: int = 0  # of several such processes, in the order of their ids; it wraps around
    stops: bool = False  # SIGSTOP in place of SIGKILL
    delay_s: float = 0.0  # after the begin of the phase

    @property
    def mark(self) -> str:
        """The line that it writes when it strikes."""
        how = "SIGSTOP" if self.stops else "SIGKILL"
        how = "no room" if self.target == "disk" else how
        return f"{STRUCK}{how} for {self.target} {self.number} in {self.phase} of step {self.step}"

    def strike(self) -> None:
        """Hit the process, if it is there; while a run starts, wait until it is."""
        if self.target == "disk":
            self._say()
            fill_disk()
            return
        give_up_s = time.monotonic() + (_START_S if self.phase == "startup" else 0.0)
        while not (found := self._targets()) and time.monotonic() < give_up_s:
            time.sleep(0.1)
        if found:
            self._say()
            how = signal.SIGSTOP if self.stops else signal.SIGKILL
            os.kill(found[self.number % len(found)], how)

    def _say(self) -> None:
        sys.stderr.write(f"{self.mark}\n")
        sys.stderr.flush()

    def _targets(self) -> list[int]:
        run = os.environ[MARK]
        found = [pid for pid in processes(run, _TITLES[self.target]) if not _is_stopped(pid)]
        if self.target != "raylet":
            return found
        homes = {_parent(pid) for pid in processes(run, _ACTORS)}  # nodes that have an actor
        return [pid for pid in found if pid in homes and not _of_the_head(pid)]


def fill_disk() -> None:
    """Leave no room for some seconds where this process works, which is a file system of its own.

    Raises:
        EngineError: when it is not.
    """
    if Path.cwd().stat().st_dev == Path.cwd().parent.stat().st_dev:
        raise EngineError(f"{Path.cwd()} is no file system of its own, and is not filled")
    ballast = Path(f"ballast-{time.monotonic_ns()}")  # an earlier one may still be there
    try:
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(b"\0" * _CHUNK_BYTES) == _CHUNK_BYTES:
                    pass
            except OSError:
                pass  # it is full
            time.sleep(_FULL_S)
    finally:
        ballast.unlink()


def processes(mark: str, titles: Sequence[str] = ("",)) -> list[int]:
    """The processes of the run with this mark whose command has such a title, by their ids.

    The mark is in the environment of a process, or of one that it descends from.
    """
    marked = set(processes_with([f"{MARK}={mark}"]))
    parents: dict[int, int] = {}
    named: list[int] = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().decode(errors="replace")
            state, parent, *_ = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended, or is not ours
            continue
        pid = int(directory.name)
        parents[pid] = int(parent)
        if state != "Z" and any(title in command for title in titles):
            named.append(pid)
    return sorted(pid for pid in named if _descends(pid, marked, parents))


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _is_stopped(pid: int) -> bool:
    return _stat(pid)[0] == "T"


def _stat(pid: int) -> list[str]:
    """State, parent and what follows of a process; of one that has ended "X" and no parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]


def _of_the_head(raylet: int) -> bool:
    try:
        return b"--head" in Path(f"/proc/{raylet}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False


def _descends(pid: int, marked: Collection[int], parents: Mapping[int, int]) -> bool:
    while pid in parents:
        if pid in marked:
            return True
        pid = parents[pid]
    return False


def to_json(faults: Sequence[Fault]) -> str:
    """As the saboteur reads them."""
    return json.dumps([asdict(fault) for fault in faults])


def from_json(text: str) -> list[Fault]:
    """What `to_json` wrote."""
    return [Fault(**fields) for fields in json.loads(text)]
