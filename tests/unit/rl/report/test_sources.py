"""Rollout files are packed once, and the page follows what lies in the directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.report import sources
from rl.report.sources import PackedRollouts, planned_steps
from rl.run.directory import RolloutFolder
from rl.run.rollouts import write_rollouts
from tests.unit.rl.report.runs import make_run, rows

pytestmark = pytest.mark.unit

CONFIG = {"algorithm": {"num_steps": 60}, "checkpoint": {"rollouts_every": 2}}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read."""
    found: list[str] = []
    read = sources.read_rollouts
    monkeypatch.setattr(
        sources, "read_rollouts", lambda path: (found.append(path.stem), read(path))[1]
    )
    return found


def test_a_second_update_reads_only_what_is_new(tmp_path: Path, reads: list[str]) -> None:
    packed = PackedRollouts(make_run(tmp_path, [rows(1), rows(2)]))
    packed.update(CONFIG, 2)
    write_rollouts(tmp_path / "rollouts/step-000003.parquet", rows(3))
    found = packed.update(CONFIG, 3)
    assert reads == ["step-000001", "step-000002", "step-000003"]
    assert [step.step for step in found["rollouts"]] == [1, 2, 3]


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    packed = PackedRollouts(make_run(tmp_path, [rows(1), rows(2)]))
    before = packed.update(CONFIG, 2)
    write_rollouts(tmp_path / "rollouts/step-000002.parquet", rows(2, num_problems=1))
    after = packed.update(CONFIG, 2)
    assert before["rollouts"][1].num_rows == 6
    assert after["rollouts"][1].num_rows == 2


def test_rollouts_after_the_last_step_are_of_an_earlier_run(tmp_path: Path) -> None:
    packed = PackedRollouts(make_run(tmp_path, [rows(1), rows(2), rows(3)]))
    assert [step.step for step in packed.update({}, 2)["rollouts"]] == [1, 2]


def test_all_sources_stay_within_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BUDGET_BYTES", 4000)
    make_run(tmp_path, [rows(step, 30) for step in range(1, 6)])
    write_rollouts(tmp_path / "probe/step-000005.parquet", rows(5, 30))
    found = PackedRollouts(tmp_path).update({}, 5)
    assert set(found) == {"rollouts", "probe"}
    assert sum(len(step.data) for steps in found.values() for step in steps) <= 4000


def test_the_share_of_a_step_is_planned_from_the_configuration() -> None:
    assert planned_steps(CONFIG, RolloutFolder.TRAINING) == 30
    assert planned_steps(CONFIG, RolloutFolder.EVALUATION) == 2
    assert planned_steps({}, RolloutFolder.TRAINING) == 0
