"""A run that hurts its own processes: `python -m launch.benches.faults.saboteur FAULTS key=value`.

The run is `launch/train.py` as it is. Before it starts, the methods with which the driver begins a
phase are made to tell the saboteur, who strikes once for each fault.
"""

from __future__ import annotations

import re
import runpy
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from actors.groups.reward import RewardGroup
from actors.groups.rollout import RolloutEngines
from actors.groups.trainer import TrainGroup
from launch.benches.faults.faults import Fault, Phase, from_json
from launch.benches.faults.samples import note_sample
from rl.types import Ask

TRAIN = Path(__file__).resolve().parents[2] / "train.py"


class Saboteur:
    """Listens for phases, and strikes when one comes that a fault is meant for."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._step = 0  # whose rollout began last

    def listen(self) -> None:
        """Be told of every phase that the driver begins."""
        _before(RolloutEngines, "generate", self._on_generate)
        _before(RewardGroup, "judge", lambda *_: self._begins("score", self._step))
        _before(TrainGroup, "start", lambda *_: self._begins("startup", 0))
        _before(TrainGroup, "update", lambda *_: self._begins("update", self._step))
        _before(TrainGroup, "publish", self._on_publish)
        _before(TrainGroup, "save_checkpoint", self._on_checkpoint)

    def _on_generate(self, asks: Sequence[Ask], step: int) -> None:
        purposes = {ask.sampling.purpose for ask in asks}
        if "evaluation" in purposes:
            self._begins("evaluation", step)
        elif "rollout" in purposes:
            self._step = step
            self._begins("rollout", step)

    def _on_publish(self, version: int) -> None:
        note_sample(version)
        self._begins("publish", version)

    def _on_checkpoint(self, directory: Path) -> None:
        self._begins("checkpoint", int(re.findall(r"\d+", directory.name)[0]))

    def _begins(self, phase: Phase, step: int) -> None:
        for fault in [f for f in self._faults if (f.phase, f.step) == (phase, step)]:
            self._faults.remove(fault)
            threading.Timer(fault.delay_s, fault.strike).start()


def _before(kind: type, name: str, tell: Callable[..., None]) -> None:
    """Call `tell` with the arguments of a method before it is called."""
    method: Callable[..., object] = getattr(kind, name)

    def told(self: object, *args: object) -> object:
        tell(*args)
        return method(self, *args)

    setattr(kind, name, told)


if __name__ == "__main__":
    _, faults, *overrides = sys.argv
    Saboteur(from_json(faults)).listen()
    sys.argv = [str(TRAIN), *overrides]
    runpy.run_path(sys.argv[0], run_name="__main__")
