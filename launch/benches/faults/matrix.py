"""The kill matrix: each kind of process, killed in each phase, beside a run that was left alone.

A run whose rollout actor, reward shard, policy rank, sandbox worker or node dies goes on by
itself: it meets a fault in each phase, in a step of its own. One whose driver dies is started
again with `resume=auto`, and meets the next fault then. Without the GCS a run lives on for a while,
so that each of these faults has a run of its own. A disk, where this process may mount one, is full
for some seconds; the run goes on, and its exit code says that files are missing which only inform.
All have to end with the weights, metrics and evaluations of the run that was left alone.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from conf.errors import EngineError, UserError
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
OUTLIVED: tuple[Target, ...] = ("gcs",)  # for some steps: further faults would find nothing
PHASES: tuple[Phase, ...] = get_args(Phase)
_EVERY = 2  # steps between the checkpoints of these runs, and between the evaluations
_LENGTH = 2 * len(PHASES) + 1  # steps: two for each phase, and one to end with
_LONGEST_S: dict[Phase, float] = {"startup": 8.0, "checkpoint": 0.3, "evaluation": 0.3}
_LONG = (
    *(f"algorithm.num_steps={_LENGTH}", f"checkpoint.every={_EVERY}", f"evaluation.every={_EVERY}"),
    *("supervision.restarts=40", "supervision.backoff_s=0.1"),
)
_STEPS_AGAIN: dict[Target, int] = {
    "policy": _EVERY,
    "raylet": _EVERY,
    "driver": _EVERY,
    "gcs": _EVERY,
}
# What a process needs to be there: programs are run where tests judge; actors are on many nodes.
_OVERRIDES: dict[Target, tuple[str, ...]] = {
    "sandbox": ("reward=execution",),
    "raylet": ("placement.strategy=SPREAD",),
}
_DISK = "size=256m"  # of memory; two checkpoints take a quarter
_SANDBOXED = 8  # more processes than a sandbox has
_DEADLINE_S = 300.0  # of a run, and for each of its faults
_NODE_S = 120  # for its start
_NODE_CPUS = 8  # of a Ray node: numbers by which actors are placed, not cores


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixPlan:
    """The part of the matrix that is run; no targets or phases are all.

    Raises:
        UserError: for a command that is stopped, since nothing watches it, and for a disk without
            the right to mount one.
    """

    targets: Sequence[Target] = ()
    phases: Sequence[Phase] = ()
    seeds: Sequence[int] = (0,)
    stops: bool = False  # SIGSTOP in place of SIGKILL

    def __post_init__(self) -> None:
        if self.stops and "driver" in self.targets:
            raise UserError(
                "targets: driver with stops=true is a command that waits to be continued; nothing "
                "watches it: leave one of them out"
            )
        if "disk" in self.targets and os.geteuid() != 0:
            raise UserError("targets: disk mounts a file system of its own, which takes root")

    @property
    def chosen(self) -> Sequence[Target]:
        """The processes that are hit."""
        left_out: set[Target] = {"driver", "disk"} if self.stops else set()
        if os.geteuid() != 0:
            left_out.add("disk")
        return self.targets or [t for t in get_args(Target) if t not in left_out]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The faults of one run, each in a phase and step of its own, and what became of it."""

    faults: tuple[Fault, ...]
    struck: frozenset[Fault]  # the others found no such process
    resumes: int
    losses: int  # actors that were started again, and the policy as one
    again: int  # steps that were completed more than once
    wrong: tuple[str, ...]  # empty: the run has ended as one that was left alone

    def cells(self, phase: Phase) -> list[str]:
        """What the table shows for one phase, if the run met a fault in it."""
        met = [fault in self.struck for fault in self.faults if fault.phase == phase]
        return [
            "differs" if there and self.wrong else "same" if there else "not there" for there in met
        ]


def measure_faults(plan: MatrixPlan) -> None:
    """Run the matrix, or a part of it, and print it.

    Raises:
        EngineError: when a run ended otherwise than the one that was left alone.
    """
    console = Console()
    targets, phases = plan.chosen, plan.phases or PHASES
    courses: dict[Target, list[Course]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        whole = Wholes(root)
        for target, seed in itertools.product(targets, plan.seeds):
            for number, killing in enumerate(runs_of(target, phases, seed)):
                faults = [replace(fault, stops=plan.stops) for fault in killing]
                cwd = root / f"{target}-{seed}-{number}"
                course = take_course(faults, whole.beside(target), cwd)
                courses.setdefault(target, []).append(course)
                console.say(_line(target, seed, course))
    taken = list(itertools.chain.from_iterable(courses.values()))
    columns = [_column(courses[target], phases) for target in targets]
    names = (*phases, "restarts", "resumed", "steps again")
    rows = [(name, *cells) for name, cells in zip(names, zip(*columns, strict=True), strict=True)]
    console.table("kill matrix", rows, ("in", *targets))
    if wrong := sum(bool(course.wrong) for course in taken):
        raise EngineError(f"{wrong} of {len(taken)} runs ended otherwise than one left alone")


def _line(target: Target, seed: int, course: Course) -> str:
    places = (f"{f.phase} of step {f.step} +{f.delay_s:.2f} s" for f in course.faults)
    return f"{target}, seed {seed}: {', '.join(places)}: {'; '.join(course.wrong) or 'the same'}"


def _column(courses: Sequence[Course], phases: Sequence[Phase]) -> tuple[str, ...]:
    cells: list[str] = []
    for phase in phases:
        counts = Counter(cell for course in courses for cell in course.cells(phase))
        cells.append(", ".join(f"{number} {cell}" for cell, number in sorted(counts.items())))
    sums = (
        sum(getattr(course, name) for course in courses) for name in ("losses", "resumes", "again")
    )
    return (*cells, *map(str, sums))


class Wholes:
    """The runs that are left alone: one for each reward, made when it is needed first."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[tuple[str, ...], Ended] = {}

    def beside(self, target: Target) -> Ended:
        """The run that one whose processes of this kind are hit is compared with.

        Raises:
            EngineError: when it fails.
        """
        how = tuple(_OVERRIDES["sandbox"]) if target == "sandbox" else ()
        if how not in self._made:
            ended = run_small(self._root / f"whole-{len(self._made)}", (), [*_LONG, *how])
            if ended.code != 0:
                raise EngineError(
                    f"the run that is left alone ended with {ended.code}: {ended.reason}"
                )
            self._made[how] = ended
        return self._made[how]


def take_course(faults: Sequence[Fault], whole: Ended, cwd: Path) -> Course:
    """Run with these faults of one kind of process, resume where needed, and compare."""
    target = faults[0].target
    overrides = [*_LONG, *_OVERRIDES.get(target, ())]
    said, resumes = "", 0
    deadline_s = _DEADLINE_S * (1 + len(faults))
    if target in ENDS_THE_RUN:
        left = list(faults)
        ended = run_small(cwd, left[:1], overrides)
        while ended.code != 0 and resumes < len(faults):
            said, resumes, left = said + ended.said, resumes + 1, left[1:]
            ended = run_small(cwd, left[:1], [*overrides, "resume=auto"])
    elif target == "raylet":
        with _nodes(1 + len(faults), cwd) as environment:
            ended = run_small(
                cwd, faults, overrides, environment=environment, deadline_s=deadline_s
            )
    elif target == "disk":
        ended = _in_little_room(cwd, faults, overrides, deadline_s)
    else:
        ended = run_small(cwd, faults, overrides, deadline_s=deadline_s)
    said += ended.said
    struck = frozenset(fault for fault in faults if fault.mark in said)
    losses, again = 0, steps_again(said)
    wrong = [f"exit code {ended.code}: {ended.reason}"]
    if ended.code == 0:
        costs = lost(ended.directory)
        losses = sum(count for name, count in costs.items() if name.endswith("_restarts"))
        wrong = list(differences(whole.directory, ended.directory))
    if again > (allowed := len(struck) * _STEPS_AGAIN.get(target, 0)):
        wrong.append(f"{again} steps taken again, more than {allowed}")
    return Course(
        faults=tuple(faults),
        struck=struck,
        resumes=resumes,
        losses=losses,
        again=again,
        wrong=tuple(wrong),
    )


def runs_of(target: Target, phases: Sequence[Phase], seed: int) -> list[list[Fault]]:
    """The faults of each run, where a process is hit in these phases."""
    faults = faults_of(target, phases, seed)
    return [[fault] for fault in faults] if target in OUTLIVED else [faults]


def faults_of(target: Target, phases: Sequence[Phase], seed: int) -> list[Fault]:
    """The faults of one run, by their steps.

    The seed says how long after the begin of the phase each is, which of several processes is hit,
    and whether in the first step after a checkpoint or in the second.
    """
    rng = random.Random(f"{target} {seed}")
    found: list[Fault] = []
    for place, phase in enumerate(PHASES):
        first = 2 * place  # steps with a checkpoint and an evaluation are even
        step = 0 if phase == "startup" else first + rng.randrange(2)
        if phase in ("checkpoint", "evaluation"):
            step = first
        fault = Fault(
            target=target,
            phase=phase,
            step=step,
            number=rng.randrange(_SANDBOXED),
            delay_s=rng.uniform(0.0, _LONGEST_S.get(phase, 0.15)),
        )
        if phase in phases:
            found.append(fault)
    return found


def _in_little_room(
    cwd: Path, faults: Sequence[Fault], overrides: Sequence[str], deadline_s: float
) -> Ended:
    """A run on a file system that is full now and then; how it ended, as if nothing had informed.

    Its directory is copied to where it is compared.
    """
    disk = cwd / "disk"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", _DISK, "tmpfs", str(disk)], check=True)
    try:
        ended = run_small(disk, faults, overrides, deadline_s=deadline_s)
        directory = shutil.copytree(ended.directory, cwd / "run")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    if "Traceback" in ended.said:
        return replace(ended, code=None)
    has_policy = ended.code == 1 and "is complete, but not what tells" in ended.reason
    return replace(ended, code=0 if has_policy else ended.code, directory=directory)


@contextmanager
def _nodes(number: int, cwd: Path) -> Iterator[dict[str, str]]:
    """A Ray cluster of nodes on this machine; the environment of a run in `cwd` that joins it.

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
            for _ in range(number - 1):
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
