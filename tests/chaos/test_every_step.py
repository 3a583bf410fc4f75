"""N steps in one go are k and N - k more, for every k: strictly on-policy and a step ahead."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.benches.faults.runs import differences, run_small
from rl.run.directory import RunDirectory

pytestmark = pytest.mark.chaos

NUM_STEPS = 12


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("max_staleness", [0, 1])
def test_a_run_goes_on_after_any_step_as_if_it_had_not_stopped(
    tmp_path: Path, max_staleness: int, record: Callable[[str], None]
) -> None:
    overrides = [
        *(f"algorithm.num_steps={NUM_STEPS}", f"algorithm.max_staleness={max_staleness}"),
        *("checkpoint.every=1", f"checkpoint.keep={NUM_STEPS}", "evaluation.every=0"),
    ]
    whole = run_small(tmp_path / "whole", (), overrides)
    assert whole.code == 0, whole.said[-3000:]
    for step in range(1, NUM_STEPS):
        cwd = tmp_path / str(step)
        _stopped_after(step, whole.directory, cwd)
        resumed = run_small(cwd, (), [*overrides, "resume=auto"])
        assert resumed.code == 0, resumed.said[-3000:]
        assert f"after step {step}\n" in resumed.said
        assert list(differences(whole.directory, resumed.directory)) == [], f"after step {step}"
        shutil.rmtree(cwd)
    record(f"max_staleness {max_staleness}: {NUM_STEPS - 1} stops, weights and metrics the same")


def _stopped_after(step: int, whole: Path, cwd: Path) -> None:
    """Leave in `cwd` what the whole run had left if it had been killed after this step."""
    there = RunDirectory(cwd / "outputs/quickstart/run")
    shutil.copytree(whole, there.root)
    shutil.rmtree(there.hf)
    there.summary.unlink()
    for later in there.checkpoints.iterdir():
        if int(later.name.rpartition("-")[2]) > step:
            shutil.rmtree(later)
