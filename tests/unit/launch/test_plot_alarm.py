"""The picture of an alarm: where it began, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.common.cli import main_simple
from launch.plot_alarm import PlotArgs, alarms, run

pytestmark = pytest.mark.unit


def lines(*fired: float) -> list[dict[str, float]]:
    """A probe every other step; the reward climbs, the probe falls."""
    found: list[dict[str, float]] = []
    for index, value in enumerate(fired):
        found.append({"step": 2 * index + 1, "reward/mean": 1.0 + index})
        probe = {"probe/pass@1": 0.9 - 0.1 * index, "probe/reward": 1.0 + index}
        found.append({"step": 2 * index + 2, "reward/mean": 1.5, "alarm/fired": value} | probe)
    return found


def test_an_alarm_is_marked_where_its_episode_begins():
    assert alarms(lines(0, 1, 1, 0, 1)) == [4, 10]
    assert alarms(lines(1, 1)) == [2]
    assert alarms(lines(0, 0)) == []


def test_a_picture_is_written(tmp_path: Path):
    text = "".join(json.dumps(line) + "\n" for line in lines(0, 0, 1))
    (tmp_path / "metrics.jsonl").write_text(text, encoding="ascii")
    assert main_simple(PlotArgs, run, [f"run={tmp_path}"]) == 0
    assert (tmp_path / "alarm.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_probe_or_metrics_is_refused(tmp_path: Path, capsys):
    assert main_simple(PlotArgs, run, [f"run={tmp_path}"]) == 2
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 1.0}\n', encoding="ascii")
    assert main_simple(PlotArgs, run, [f"run={tmp_path}"]) == 2
    messages = capsys.readouterr().err
    assert "does not exist" in messages and "probe.every" in messages
