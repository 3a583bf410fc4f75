"""The names of a run's files are those that scripts rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.run.directory import HELD_OUT, RolloutFolder, RunDirectory

pytestmark = pytest.mark.unit

FILES = [
    *("config.yaml", "metrics.jsonl", "probe.jsonl", "timeline.json", "summary.json"),
    *("report.html", "alarm.png", "finished.json"),
]
FOLDERS = ["checkpoints", "best", "hf", "trackers", "rollouts", "probe", "evaluation"]


def test_files_have_the_names_that_scripts_rely_on(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    files = [
        *(run.config, run.metrics, run.probe_log, run.timeline, run.summary),
        *(run.report, run.alarm_plot, run.finished),
    ]
    assert files == [tmp_path / name for name in FILES]
    assert run.config_until(10) == tmp_path / "config-until-step-000010.yaml"
    assert run.summary_until(10) == tmp_path / "summary-until-step-000010.json"
    folders = [run.checkpoints, run.best, run.hf, run.trackers, *map(run.rollouts, RolloutFolder)]
    assert folders == [tmp_path / name for name in FOLDERS]


def test_rollout_files_are_found_in_order_of_their_steps(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    files = [run.rollout_file(RolloutFolder.TRAINING, step) for step in (2, 10, 1_000_000)]
    assert [file.name for file in files][:2] == ["step-000002.parquet", "step-000010.parquet"]
    run.rollouts(RolloutFolder.TRAINING).mkdir()
    for file in files:
        file.touch()
    files[1].with_name("step-000003.parquet.partial").touch()  # of a writer that was killed
    assert run.rollout_files(RolloutFolder.TRAINING, 1_000) == files[:2]
    assert run.rollout_files(RolloutFolder.PROBE, 1_000) == []
    assert RolloutFolder.TRAINING not in HELD_OUT
