"""The kill matrix: each kind of process, killed in each phase, beside a run that was left alone.

A run whose rollout actor, reward shard, policy rank, sandbox worker or second node dies goes on by
itself. One whose driver, GCS or head node dies is started again with `resume=auto`, once. Both have
to end with the weights, metrics and evaluations of the run that was left alone.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from conf.errors import EngineError
from launch.benches.faults.faults import MARK, Fault, Phase, Target
from launch.benches.faults.runs import (
    ROOT,
    Ended,
    differences,
    end_all,
    lost,
    run_small,
    steps_again,
)
from rl.base.console import Console

ENDS_THE_RUN: tuple[Target, ...] = ("driver", "gcs")  # whose loss nothing survives
_STEP = 3  # the first after the checkpoint of step 2
# Phases that are not those of a step in the middle; a checkpoint and an evaluation follow step 4.
_STEPS: dict[Phase, int] = {"startup": 0, "checkpoint": 4, "evaluation": 4}
_LONGEST_S: dict[Phase, float] = {"startup": 8.0, "checkpoint": 0.3, "evaluation": 0.3}
_EVERY = 2  # steps between the checkpoints of these runs
_STEPS_AGAIN: dict[Target, int] = {
    "policy": _EVERY,
    "raylet": _EVERY,
    "driver": _EVERY,
    "gcs": _EVERY,
}
# What a process needs to be there: programs are run where tests judge; actors are on both nodes.
_OVERRIDES: dict[Target, tuple[str, ...]] = {
    "sandbox": ("reward=execution",),
    "raylet": ("placement.strategy=SPREAD",),
}
_SANDBOXED = 8  # more processes than a sandbox has
_NODE_S = 120  # for its start
_NODE_CPUS = 16  # of a Ray node: numbers by which actors are placed, not cores


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixPlan:
    """The part of the matrix that is run; no targets or phases are all."""

    targets: Sequence[Target] = ()
    phases: Sequence[Phase] = ()
    seeds: Sequence[int] = (0,)
    stops: bool = False  # SIGSTOP in place of SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fault, and what became of the run."""

    fault: Fault
    struck: bool  # False: there was no such process
    resumed: bool
    losses: int  # actors that were started again, and the policy as one
    again: int  # steps that were completed more than once
    wrong: tuple[str, ...]  # empty: the run has ended as one that was left alone

    @property
    def row(self) -> tuple[str, ...]:
        """As the table shows it."""
        how = "resumed" if self.resumed else "by itself" if self.struck else "not there"
        place = f"{self.fault.phase}, step {self.fault.step}, +{self.fault.delay_s:.2f} s"
        return (
            self.fault.target,
            place,
            how,
            str(self.losses),
            str(self.again),
            "; ".join(self.wrong) or "the same",
        )


def measure_faults(plan: MatrixPlan) -> None:
    """Run the matrix, or a part of it, and print it.

    Raises:
        EngineError: when a run ended otherwise than the one that was left alone.
    """
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        whole = Wholes(root)
        cells: list[Cell] = []
        wanted = (plan.targets or get_args(Target), plan.phases or get_args(Phase), plan.seeds)
        for number, (target, phase, seed) in enumerate(itertools.product(*wanted)):
            fault = replace(fault_of(target, phase, seed), stops=plan.stops)
            cells.append(try_fault(fault, whole.beside(target), root / str(number)))
            console.say("  ".join(cells[-1].row))
    about = ("hit", "when", "ended", "restarts", "steps again", "weights, metrics, evaluations")
    console.table("kill matrix", [cell.row for cell in cells], about)
    wrong = sum(bool(cell.wrong) for cell in cells)
    if wrong:
        raise EngineError(f"{wrong} of {len(cells)} runs ended otherwise than one left alone")


class Wholes:
    """The runs that are left alone: one for each reward, made when it is needed first."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[tuple[str, ...], Ended] = {}

    def beside(self, target: Target) -> Ended:
        """The run that one whose process of this kind is hit is compared with.

        Raises:
            EngineError: when it fails.
        """
        how = tuple(_OVERRIDES["sandbox"]) if target == "sandbox" else ()
        if how not in self._made:
            ended = run_small(self._root / f"whole-{len(self._made)}", (), how)
            if ended.code != 0:
                raise EngineError(
                    f"the run that is left alone ended with {ended.code}: {ended.reason}"
                )
            self._made[how] = ended
        return self._made[how]


def try_fault(fault: Fault, whole: Ended, cwd: Path) -> Cell:
    """Run with one fault, resume where that is needed, and compare."""
    overrides = _OVERRIDES.get(fault.target, ())
    if fault.target == "raylet":
        with _two_nodes(cwd) as environment:
            ended = run_small(cwd, [fault], overrides, environment=environment)
    else:
        ended = run_small(cwd, [fault], overrides)
    num_struck, again = ended.num_struck, steps_again(ended.said)
    resumed = fault.target in ENDS_THE_RUN and ended.code != 0
    if resumed:
        done = ended.said
        ended = run_small(cwd, (), [*overrides, "resume=auto"])
        again = steps_again(done + ended.said)
    losses = 0
    wrong = [f"exit code {ended.code}: {ended.reason}"]
    if ended.code == 0:
        costs = lost(ended.directory)
        losses = sum(count for name, count in costs.items() if name.endswith("_restarts"))
        wrong = list(differences(whole.directory, ended.directory))
    if again > (allowed := _STEPS_AGAIN.get(fault.target, 0)):
        wrong.append(f"{again} steps taken again, more than {allowed}")
    return Cell(
        fault=fault,
        struck=num_struck > 0,
        resumed=resumed,
        losses=losses,
        again=again,
        wrong=tuple(wrong),
    )


def fault_of(target: Target, phase: Phase, seed: int) -> Fault:
    """The fault of one cell; the seed says how long after the begin of the phase."""
    longest_s = _LONGEST_S.get(phase, 0.15)
    rng = random.Random(f"{target} {phase} {seed}")
    delay_s = rng.uniform(0.0, longest_s)
    if target == "sandbox":  # servers, what holds them, and their programs
        number = rng.randrange(_SANDBOXED)
    else:
        number = 1 if target in ("policy", "raylet") else 0  # the second rank; the second node
    return Fault(
        target=target,
        phase=phase,
        step=_STEPS.get(phase, _STEP),
        number=number,
        delay_s=delay_s,
    )


@contextmanager
def _two_nodes(cwd: Path) -> Iterator[dict[str, str]]:
    """A Ray cluster of two nodes on this machine; the environment of a run in `cwd` that joins it.

    Actors work in the directory in which their node was started. What Ray writes lies in a
    directory of its own: in the common one, other programs would join the cluster unasked.
    """
    cwd.mkdir(parents=True, exist_ok=True)
    port = random.SystemRandom().randint(20_000, 30_000)
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as own:  # sockets take short paths
        mark = uuid.uuid4().hex
        environment = {MARK: mark, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": own}
        try:
            _start_node(["--head", f"--port={port}", "--include-dashboard=false"], cwd, environment)
            _start_node([f"--address={address}"], cwd, environment)
            yield {**environment, "RAY_ADDRESS": address}
        finally:
            end_all(mark)


def _start_node(options: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
    node = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--num-cpus={_NODE_CPUS}"]
    others = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [*node, "--node-ip-address=127.0.0.1", *options],
        cwd=cwd,
        env={**others, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=_NODE_S,
        check=False,
    )
    if done.returncode != 0:
        raise EngineError(f"ray start failed: {done.stderr[-500:]}")
