"""What a run leaves behind as it goes, on fakes instead of engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.observe.watchers import Watchers
from actors.stages import rl_run
from actors.stages.evaluation import Evaluation
from actors.stages.rl_run import RlRun
from rl.base.console import Console
from rl.metrics import JsonlSink
from rl.problems import minipy
from rl.problems.prompts import write_prompts
from rl.types import Minibatch, StepReport, UpdateReport
from tests.settings import run_config
from tests.unit.rl.fakes import FakeFleet, FakePolicy, make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


class SavingPolicy(FakePolicy):
    """A policy that can be saved, loaded and evaluated."""

    async def update(self, minibatch: Minibatch, old_logprobs: Any) -> UpdateReport:
        report = await super().update(minibatch, old_logprobs)
        shown = {"policy/grad_norm": 1.0, "policy/ref_kl": 0.0}  # on the console
        return UpdateReport(metrics={**report.metrics, **shown}, lr=report.lr)

    async def partition_reports(self) -> list[dict[str, int]]:
        return []

    async def save_hf(self, directory: Path) -> None:
        directory.mkdir(parents=True)

    async def save_checkpoint(self, directory: Path) -> None:
        (directory / "state").touch()

    async def load_checkpoint(self, directory: Path) -> None:
        assert (directory / "state").is_file()


class FakeTracker:
    """Remembers the steps that it was told of, and how the run ended."""

    newest: FakeTracker

    def __init__(self) -> None:
        self.told: list[object] = []
        FakeTracker.newest = self

    def forget_after(self, step: int) -> None:
        self.told.append(("after", step))

    def write(self, report: StepReport) -> None:
        self.told.append(report.step)

    def close(self, *, ok: bool) -> None:
        self.told.append(ok)


@pytest.fixture
def fleets(monkeypatch: pytest.MonkeyPatch) -> list[FakeFleet]:
    """The fleets that were started."""
    started: list[FakeFleet] = []

    @asynccontextmanager
    async def start_fleet(*_: Any) -> AsyncIterator[FakeFleet]:
        fleet = FakeFleet()
        fleet.policy = SavingPolicy(fleet.events, fleet.rollout)
        started.append(fleet)
        yield fleet

    async def evaluate(*_: Any) -> Evaluation:
        judged = make_judged(make_group(make_prompts(1)[0], 2), (0.0, 1.0), (False, True))
        return Evaluation(groups_P=(judged,), num_executed=2)

    monkeypatch.setattr(rl_run, "start_fleet", start_fleet)
    monkeypatch.setattr(rl_run, "evaluate", evaluate)
    monkeypatch.setattr(rl_run, "starts_ray", lambda _: False)
    return started


def run(directory: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> FakeTracker:
    """Run to the end, or leave what the tracker was told to `FakeTracker.newest`."""
    tracker = FakeTracker()

    def make_watchers(_: Any, where: Path, warn: Any) -> Watchers:
        return Watchers(JsonlSink(where / "metrics.jsonl"), {"fake": tracker}, warn)

    monkeypatch.setattr(rl_run, "make_watchers", make_watchers)
    settings = ["++probe.every=0", "++checkpoint.every=2", "++algorithm.prompts_per_step=2"]
    settings += ["++data.num_train=8", "++data.num_eval=2"]
    cfg = run_config([*settings, *overrides])
    asyncio.run(RlRun(cfg, directory, Console()).run())
    return tracker


def stages(directory: Path) -> list[tuple[str, int]]:
    events = json.loads((directory / "timeline.json").read_text(encoding="ascii"))
    spans = [event for event in events if event["ph"] == "X" and event["pid"] == 1]
    return [(span["name"], span["args"]["step"]) for span in spans]


def test_a_resumed_run_tells_its_trackers_where_and_keeps_one_timeline(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
):
    first = run(tmp_path, monkeypatch, "++algorithm.num_steps=3")
    assert first.told == [("after", 0), 1, 2, 3, True]
    step = [(stage, 3) for stage in ("rollout", "score", "update", "publish")]
    assert stages(tmp_path)[-5:] == [*step, ("evaluate", 3)]
    assert stages(tmp_path)[0] == ("evaluate", 0)
    assert ("checkpoint", 2) in stages(tmp_path)

    (tmp_path / "hf").rmdir()
    resumed = run(tmp_path, monkeypatch, "++algorithm.num_steps=4", "++resume=auto")
    assert resumed.told == [("after", 2), 3, 4, True]
    assert [s for name, s in stages(tmp_path) if name == "update"] == [1, 2, 3, 4]
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert len(fleets) == 2


def test_a_resumed_run_reads_what_was_found_before_its_first_step(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    held_out = make_prompts(1)
    monkeypatch.setattr(
        rl_run, "load_problems", lambda cfg, seed: (minipy.make_prompts("train", 8, 0), held_out)
    )
    given = ("++evaluation.num_samples=2", "++resume=auto")
    run(tmp_path, monkeypatch, "++algorithm.num_steps=3", *given)
    (tmp_path / "hf").rmdir()
    capsys.readouterr()
    run(tmp_path, monkeypatch, "++algorithm.num_steps=4", *given)
    said = "".join(capsys.readouterr().out.split("\n"))
    assert f"before: read from {tmp_path}/evaluation/step-000000.parquet" in said
    assert [step for name, step in stages(tmp_path) if name == "evaluate"] == [0, 4]


def test_held_out_problems_that_are_trained_on_are_warned_of(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, count in (("train", 8), ("eval", 3)):
        write_prompts(tmp_path / f"{name}.parquet", minipy.make_prompts("train", count, 0))
    files = [f"data.{name}_path={tmp_path}/{name}.parquet" for name in ("train", "eval")]
    run(tmp_path, monkeypatch, "data=parquet", *files, "++algorithm.num_steps=1")
    said = " ".join("".join(capsys.readouterr()).split())
    assert "3 of 3 held-out problems are trained on, the first is" in said


def test_trackers_learn_of_a_run_that_fails(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: Any) -> None:
        raise RuntimeError("no engine")

    monkeypatch.setattr(SavingPolicy, "save_checkpoint", fail)
    with pytest.raises(ExceptionGroup):
        run(tmp_path, monkeypatch, "++algorithm.num_steps=3")
    assert FakeTracker.newest.told == [("after", 0), 1, 2, False]
    assert ("checkpoint", 2) not in stages(tmp_path)
