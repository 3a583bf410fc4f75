"""A long run with a fault every few steps: does it end as one that was left alone, and what grows.

What the run that is hurt holds is written down at each publication. The figures of its second
quarter, when everything has been loaded, stand beside those of its last one.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from conf.errors import EngineError
from launch.benches.faults.faults import Fault, Phase, Target
from launch.benches.faults.runs import differences, lost, run_small, steps_again
from launch.benches.faults.samples import SAMPLES, count_files, drift, read_samples
from rl.base.console import Console

TARGETS: tuple[Target, ...] = ("rollout", "reward", "policy")  # whose loss a run survives alone
PHASES: tuple[Phase, ...] = ("rollout", "score", "update", "publish", "checkpoint", "evaluation")
_DELAY_S = 0.3


def soak_faults(num_steps: int, every: int, seed: int) -> list[Fault]:
    """A fault every so many steps, by chance; every kind of process has its turn."""
    rng = random.Random(f"soak {seed}")
    found: list[Fault] = []
    turns: list[Target] = []
    for step in range(every, num_steps + 1, every):
        if not turns:
            turns = rng.sample(TARGETS, len(TARGETS))
        phase, delay_s = rng.choice(PHASES), rng.uniform(0.0, _DELAY_S)
        found.append(Fault(target=turns.pop(), phase=phase, step=step, delay_s=delay_s))
    return found


def measure_soak(num_steps: int, every: int, seed: int) -> None:
    """Run it, beside a run that is left alone, and print what it lost and what grew.

    Raises:
        EngineError: when it ended otherwise than the one that was left alone.
    """
    console = Console()
    faults = soak_faults(num_steps, every, seed)
    often = len(faults)
    length = [
        *("algorithm.prompts_per_step=2", "algorithm.group_size=4", "data.num_eval=2"),
        *(f"algorithm.num_steps={num_steps}", f"checkpoint.every={every}"),
        *(f"evaluation.every={every}", f"supervision.restarts={often}", "supervision.backoff_s=0"),
    ]
    deadline_s = 120.0 + 10.0 * num_steps + 90.0 * often
    scratch = Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))  # sockets take short paths
    try:
        whole = run_small(scratch / "whole", (), length, deadline_s=deadline_s)
        if whole.code != 0:
            raise EngineError(f"the run that is left alone ended with {whole.code}: {whole.reason}")
        temporary, samples = scratch / "t", scratch / "samples.jsonl"
        temporary.mkdir()
        more = {"TMPDIR": str(temporary), SAMPLES: str(samples)}
        hurt = run_small(scratch / "hurt", faults, length, deadline_s=deadline_s, environment=more)
        if hurt.code != 0:
            raise EngineError(f"the run ended with {hurt.code}: {hurt.reason}")
        console.table(
            "soak", drift(read_samples(samples)), ("held", "second quarter", "last quarter")
        )
        left = count_files(temporary)
        costs = ", ".join(f"{name} {count}" for name, count in sorted(lost(hurt.directory).items()))
        console.say(
            f"{num_steps} steps, {hurt.num_struck} of {often} faults struck ({costs}), "
            f"{steps_again(hurt.said)} steps taken again, {left} temporary files left"
        )
        if wrong := list(differences(whole.directory, hurt.directory)):
            raise EngineError(f"it ended otherwise than one left alone: {'; '.join(wrong)}")
        console.say("weights, metrics and evaluations are those of the run that was left alone")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
