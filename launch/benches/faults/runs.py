"""Small runs of the quickstart that are hurt or left alone, and in what two of them differ."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from launch.benches.faults.faults import MARK, STRUCK, Fault, processes, to_json
from rl.metrics import read_metrics
from rl.run.directory import RunDirectory

ROOT = Path(__file__).resolve().parents[3]
SMALL = (
    *("experiment=quickstart", "data.num_eval=6", "data.num_train=64", "name=run"),
    *("algorithm.prompts_per_step=4", "algorithm.num_steps=4"),
    *("checkpoint.every=2", "probe.every=0", "evaluation.every=2", "report.every=0"),
    # Beside the pause of a stopped process nothing takes that long here.
    *("rollout.deadline_s=30", "reward.deadline_s=30", "policy.deadline_s=40"),
    "placement.ready_timeout_s=90",
)

# Metrics of how a run went, not of what it learned: a shard that starts anew has an empty cache.
OF_THE_CALL = ("time/", "fault/", "rollout/tokens_per_s", "rm/reused_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run has ended."""

    code: int | None  # None: it was ended from here, because it did not end by itself
    said: str
    directory: Path  # of the run

    @property
    def reason(self) -> str:
        """The last line that it wrote."""
        return (self.said.strip().splitlines() or [""])[-1]

    @property
    def num_struck(self) -> int:
        """How many faults met a process."""
        return self.said.count(STRUCK)


def run_small(  # noqa: PLR0913 - where, what hurts it, how long it may take
    cwd: Path,
    faults: Sequence[Fault] = (),
    overrides: Sequence[str] = (),
    *,
    deadline_s: float = 400.0,
    environment: Mapping[str, str] | None = None,
    stop: tuple[float, signal.Signals] | None = None,
) -> Ended:
    """Run the quickstart in `cwd` with these faults; `stop` is a signal and the second it comes in.

    Of its processes none is left afterwards, unless `environment`, which is added to this one, has
    a mark: then they are those of whoever has set it.
    """
    mark = uuid.uuid4().hex
    cwd.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "launch.benches.faults.saboteur", to_json(faults)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), MARK: mark, **(environment or {})}
    with (cwd / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *SMALL, *overrides], cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT
        )
        code: int | None = None
        if stop is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(stop[0])
            process.send_signal(stop[1])  # to one that has ended: nothing
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(deadline_s)
    if env[MARK] == mark:
        end_all(mark)
    said = (cwd / "log").read_text(encoding="utf-8", errors="replace")
    return Ended(code=code, said=said, directory=cwd / "outputs/quickstart/run")


def end_all(mark: str) -> None:
    """End what is left of a run whose driver or GCS was killed."""
    for pid in processes(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def differences(whole: Path, hurt: Path) -> Iterator[str]:
    """In what a run differs from one that was left alone, but for times and what losses cost."""
    ours, theirs = (
        list(map(_figures, read_metrics(RunDirectory(d).metrics))) for d in (hurt, whole)
    )
    if [line["step"] for line in ours] != [line["step"] for line in theirs]:
        yield f"steps {[line['step'] for line in ours]}"
        return
    for our, their in zip(ours, theirs, strict=True):
        wrong = [name for name in {**our, **their} if our.get(name) != their.get(name)]
        if wrong:
            yield f"step {our['step']}: {', '.join(sorted(wrong))}"
    for file in sorted(RunDirectory(whole).hf.glob("*.safetensors")):
        expected, found = load_file(file), load_file(RunDirectory(hurt).hf / file.name)
        changed = [name for name in expected if not expected[name].equal(found[name])]
        if changed:
            yield f"{len(changed)} of {len(expected)} tensors of {file.name}"
    shares = [_shares(RunDirectory(directory).summary) for directory in (whole, hurt)]
    if shares[0] != shares[1]:
        yield f"the evaluations: {shares[1]} in place of {shares[0]}"


def lost(directory: Path) -> dict[str, int]:
    """What losses have cost the run, by the names of its metrics."""
    total: dict[str, int] = {}
    for line in read_metrics(RunDirectory(directory).metrics):
        for name, value in line.items():
            if name.startswith("fault/"):
                total[name] = total.get(name, 0) + int(value)
    return total


def steps_again(said: str) -> int:
    """How many steps a run has completed more than once, by the lines that it wrote.

    >>> steps_again("step    1/4  ...\\nstep    2/4  ...\\nresumed\\nstep    2/4  ...")
    1
    """
    counts = Counter(re.findall(r"^step +(\d+)/", said, re.MULTILINE))
    return counts.total() - len(counts)


def _figures(line: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if not name.startswith(OF_THE_CALL)}


def _shares(summary: Path) -> dict[str, float]:
    """What the evaluations of a run found."""
    found: dict[str, float] = json.loads(summary.read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if "pass@" in name}
