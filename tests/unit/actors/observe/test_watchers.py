"""Watchers receive every step, and never harm or delay a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.observe import watchers
from actors.observe.watchers import Watchers
from rl.base.best_effort import BestEffort
from rl.metrics import JsonlSink
from rl.run.rollouts import RolloutRow, rollout_rows
from rl.types import StepReport
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

REPORTS = [StepReport(step=step, metrics={"reward/mean": step / 2}) for step in (1, 2, 3)]


class FakeSink:
    """Remembers what it receives, and fails at one step."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.told: list[object] = []
        self._fails_at = fails_at

    def forget_after(self, step: int) -> None:
        self.told.append(f"after {step}")

    def write(self, report: StepReport) -> None:
        if report.step == self._fails_at:
            raise ConnectionError("no route to the tracker\nwith details")
        self.told.append(report.step)

    def close(self, *, ok: bool) -> None:
        self.told.append("ok" if ok else "failed")


class ShowingSink(FakeSink):
    """Shows completions, or fails to."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self._fails = fails

    def show(self, rows: Sequence[RolloutRow]) -> None:
        if self._fails:
            raise ConnectionError("the table is too large")
        self.told.append(f"{len(rows)} rows")


def lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_every_sink_is_told_of_every_step_and_of_the_end(tmp_path: Path):
    sink, warnings = FakeSink(), []
    path = tmp_path / "metrics.jsonl"
    with Watchers(JsonlSink(path), {"fake": sink}, BestEffort(warnings.append)) as all_sinks:
        all_sinks.forget_after(0)
        for report in REPORTS:
            all_sinks.write(report)
    assert sink.told == ["after 0", 1, 2, 3, "ok"]
    assert lines(path) == [1, 2, 3]
    assert warnings == []


def test_a_tracker_that_fails_is_reported_once_and_the_run_goes_on(tmp_path: Path):
    broken, healthy, warnings = FakeSink(fails_at=2), FakeSink(), []
    path = tmp_path / "metrics.jsonl"
    sinks = {"wandb": broken, "mlflow": healthy}
    with Watchers(JsonlSink(path), sinks, BestEffort(warnings.append)) as all_sinks:
        all_sinks.forget_after(0)
        for report in REPORTS:
            all_sinks.write(report)
    assert warnings == [
        "wandb is not complete: no route to the tracker; with details; the run goes on"
    ]
    assert broken.told == ["after 0", 1]
    assert healthy.told == ["after 0", 1, 2, 3, "ok"]
    assert lines(path) == [1, 2, 3]


def test_completions_reach_the_sinks_that_show_them_and_one_that_fails_ends_no_run(tmp_path: Path):
    shows, plain, broken = ShowingSink(), FakeSink(), ShowingSink(fails=True)
    warnings: list[str] = []
    rows = list(rollout_rows(1, [make_judged(make_group(make_prompts(1)[0], 3), (0, 1, 2))], None))
    path = tmp_path / "metrics.jsonl"
    sinks = {"wandb": shows, "tensorboard": plain, "mlflow": broken}
    with Watchers(JsonlSink(path), sinks, BestEffort(warnings.append)) as all_sinks:
        all_sinks.forget_after(0)
        for report in REPORTS:
            all_sinks.write(report)
            all_sinks.show(rows)
    assert shows.told == ["after 0", 1, "3 rows", 2, "3 rows", 3, "3 rows", "ok"]
    assert plain.told == ["after 0", 1, 2, 3, "ok"]
    assert broken.told == ["after 0", 1]
    assert warnings == ["mlflow is not complete: the table is too large; the run goes on"]
    assert lines(path) == [1, 2, 3]


def test_trackers_learn_that_a_run_has_failed(tmp_path: Path):
    sink = FakeSink()
    with (
        pytest.raises(RuntimeError),
        Watchers(
            JsonlSink(tmp_path / "metrics.jsonl"), {"fake": sink}, BestEffort(print)
        ) as all_sinks,
    ):
        all_sinks.forget_after(0)
        raise RuntimeError
    assert sink.told == ["after 0", "failed"]


def test_a_tracker_that_has_not_begun_has_nothing_to_end(tmp_path: Path):
    sink = FakeSink()
    jsonl = JsonlSink(tmp_path / "metrics.jsonl")
    with pytest.raises(RuntimeError), Watchers(jsonl, {"fake": sink}, BestEffort(pytest.fail)):
        raise RuntimeError("the engines did not start")
    assert sink.told == []


def test_a_tracker_that_hangs_delays_neither_a_step_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watchers, "CLOSE_DEADLINE_S", 0.05)
    never, warnings = threading.Event(), []

    class Hanging(FakeSink):
        def write(self, report: StepReport) -> None:
            never.wait()

    path = tmp_path / "metrics.jsonl"
    with Watchers(JsonlSink(path), {"mlflow": Hanging()}, BestEffort(warnings.append)) as all_sinks:
        for report in REPORTS:
            all_sinks.write(report)
        assert lines(path) == [1, 2, 3]
    never.set()
    assert warnings == [
        "mlflow is not complete: it has not taken the last steps in time; the run goes on"
    ]


def test_a_name_that_is_not_registered_is_our_error_and_stops_the_run(tmp_path: Path):
    sink = FakeSink()
    with (
        pytest.raises(KeyError, match="reward/maen"),
        Watchers(
            JsonlSink(tmp_path / "metrics.jsonl"), {"fake": sink}, BestEffort(print)
        ) as all_sinks,
    ):
        all_sinks.forget_after(0)
        all_sinks.write(StepReport(step=1, metrics={"reward/maen": 1.0}))
    assert sink.told == ["after 0", "failed"]
