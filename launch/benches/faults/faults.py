"""A fault: which process is hit, in which phase of which step, and how."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Target = Literal["driver", "rollout", "reward", "policy", "sandbox", "raylet", "gcs"]
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
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One process that is hit once."""

    target: Target
    phase: Phase
    step: int
    number: int = 0  # of several such processes, in the order of their ids; it wraps around
    stops: bool = False  # SIGSTOP in place of SIGKILL
    delay_s: float = 0.0  # after the begin of the phase

    def strike(self) -> None:
        """Hit the process, if it is there."""
        how = signal.SIGSTOP if self.stops else signal.SIGKILL
        found = processes(os.environ[MARK], _TITLES[self.target])
        if found:
            sys.stderr.write(f"{STRUCK}{how.name} for {self.target} {self.number}\n")
            sys.stderr.flush()
            os.kill(found[self.number % len(found)], how)


def processes(mark: str, titles: Sequence[str] = ("",)) -> list[int]:
    """The processes of the run with this mark whose command has such a title, by their ids.

    The mark is in the environment of a process, or of one that it descends from.
    """
    wanted = f"{MARK}={mark}".encode()
    marked: set[int] = set()
    parents: dict[int, int] = {}
    named: list[int] = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")
            command = (directory / "cmdline").read_bytes().decode(errors="replace")
            state, parent, *_ = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended, or is not ours
            continue
        pid = int(directory.name)
        parents[pid] = int(parent)
        if wanted in environment:
            marked.add(pid)
        if state != "Z" and any(title in command for title in titles):
            named.append(pid)
    return sorted(pid for pid in named if _descends(pid, marked, parents))


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
