"""A run whose processes are killed and stopped ends by itself as one that was left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launch.benches.faults.faults import Fault
from launch.benches.faults.runs import differences, lost, run_small

pytestmark = pytest.mark.system

Record = Callable[[str], None]

FAULTS = (
    Fault(target="reward", phase="score", step=1, delay_s=0.02),
    Fault(target="rollout", phase="rollout", step=2, delay_s=0.05),
    Fault(target="policy", phase="update", step=3, number=1, delay_s=0.05),
    Fault(target="rollout", phase="rollout", step=4, stops=True),
)


@pytest.mark.timeout(600)
def test_a_run_goes_on_after_each_loss_and_ends_with_the_same_weights(
    tmp_path: Path, record: Record
) -> None:
    whole = run_small(tmp_path / "whole")
    assert whole.code == 0, whole.said[-3000:]
    hurt = run_small(tmp_path / "hurt", FAULTS, ["rollout.deadline_s=8"])
    assert hurt.code == 0, hurt.said[-3000:]
    assert list(differences(whole.directory, hurt.directory)) == []
    costs = lost(hurt.directory)
    asked_again = costs.pop("fault/asked_again")
    assert costs == {
        "fault/reward_restarts": 1,
        "fault/rollout_restarts": 2,
        "fault/policy_restarts": 1,
    }
    assert "died: an optimizer step failed" in hurt.said
    assert "resumed from" in hurt.said
    record(f"4 actors lost, {asked_again} groups asked again, weights and metrics the same")
