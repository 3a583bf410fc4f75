"""What a run leaves behind as it goes, on fakes instead of engines."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.cluster.signals import run_until_stopped
from actors.engines.adapters import base_digest
from actors.engines.specs import STATE_FILE
from actors.observe.watchers import Watchers
from actors.stages import rl_run
from actors.stages.evaluation import Evaluation
from actors.stages.recipes import make_recipe
from actors.stages.rl_run import RlRun, training_sampling
from conf.errors import EngineError, LostPolicyError, SaveError, StoppedError, UserError
from rl import metrics
from rl.base.best_effort import BestEffort
from rl.base.console import Console
from rl.base.files import replace_json
from rl.loss import Objective
from rl.metrics import JsonlSink, read_metrics
from rl.parcels import Minibatch
from rl.problems import minipy
from rl.problems.prompts import write_prompts
from rl.run import timeline
from rl.run.checkpoint import complete_checkpoints, find_newest
from rl.types import StepReport, UpdateReport
from tests.settings import POLICY, run_config
from tests.unit.rl.fakes import (
    FakeFleet,
    FakePolicy,
    FakeReward,
    FakeRollout,
    leaves,
    make_group,
    make_judged,
    make_prompts,
)

pytestmark = pytest.mark.unit


class SavingPolicy(FakePolicy):
    """A policy that can be saved, loaded and evaluated."""

    num_updates_begun = 0
    lost_at: int | None = None  # at this optimizer step, once
    num_rebuilt = 0

    async def rebuild(self) -> None:
        self.num_rebuilt += 1
        self.num_updates_begun = 0
        await self.publish(0)

    async def update(
        self, minibatch: Minibatch, old_logprobs: Any, objective: Objective
    ) -> UpdateReport:
        self.num_updates_begun += 1
        if self.num_updates_begun == self.lost_at:
            self.lost_at = None
            raise LostPolicyError("policy-1 died: an optimizer step failed")
        report = await super().update(minibatch, old_logprobs, objective)
        shown = {"policy/grad_norm": 1.0, "policy/ref_kl": 0.0}  # on the console
        return UpdateReport(metrics={**report.metrics, **shown}, lr=report.lr)

    async def partition_reports(self) -> list[dict[str, int]]:
        return []

    async def check_shared(self, directory: Path, key: str) -> None:
        """These ranks see what the driver sees."""

    async def save_hf(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)

    async def save_adapter(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)

    async def save_checkpoint(self, directory: Path) -> None:
        (directory / "state").touch()

    async def load_checkpoint(self, directory: Path) -> None:
        assert (directory / "state").is_file()


class FakeTracker:
    """Remembers the steps that it was told of, and how the run ended."""

    newest: FakeTracker
    effort: BestEffort  # of the run

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

    async def evaluate(*_: Any, **__: Any) -> Evaluation:
        judged = make_judged(make_group(make_prompts(1)[0], 2), (0.0, 1.0), (False, True))
        return Evaluation(groups_P=(judged,), num_executed=2)

    monkeypatch.setattr(rl_run, "start_fleet", start_fleet)
    monkeypatch.setattr(rl_run, "evaluate", evaluate)
    monkeypatch.setattr(rl_run, "check_written", lambda _: None)
    monkeypatch.setattr(rl_run, "starts_ray", lambda _: False)
    return started


def run(directory: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> FakeTracker:
    """Run to the end, or leave what the tracker was told to `FakeTracker.newest`."""
    tracker = FakeTracker()

    def make_watchers(_: Any, where: Path, effort: BestEffort) -> Watchers:
        return Watchers(JsonlSink(where / "metrics.jsonl"), {"fake": tracker}, effort)

    monkeypatch.setattr(rl_run, "make_watchers", make_watchers)
    settings = ["++probe.every=0", "++checkpoint.every=2", "++algorithm.prompts_per_step=2"]
    settings += ["++data.num_train=8", "++data.num_eval=2"]
    cfg = run_config([*settings, *overrides])
    console = Console()
    tracker.effort = BestEffort(console.warn)
    run_until_stopped(RlRun(cfg, directory, console, tracker.effort).run())
    return tracker


@pytest.mark.parametrize(
    ("override", "keeps"),
    [("kl_coef=0", False), ("kl_coef=0.1", True), ("entropy_coef=0.1", True)],
)
def test_samples_without_advantage_are_kept_for_a_term_of_the_loss_that_needs_none(
    override: str, keeps: bool
):
    cfg = run_config([f"++algorithm.{override}"])
    sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, cfg.seed)
    assert make_recipe(cfg, sampling).setup.keep_zero_advantage == keeps


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


def figures(directory: Path) -> list[dict[str, float]]:
    """The metrics of a run but for times, and for what counts updates here."""
    lines = (directory / "metrics.jsonl").read_text(encoding="ascii").splitlines()
    timed = ("time/", "rollout/tokens_per_s", "policy/loss", "policy/lr")
    return [
        {n: v for n, v in json.loads(line).items() if not n.startswith(timed)} for line in lines
    ]


def test_an_asynchronous_run_goes_on_with_what_was_sampled_ahead_of_its_checkpoint(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(SavingPolicy, "turns", 300)  # an update takes longer than sampling
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    settings = ("++algorithm.num_steps=6", "++algorithm.max_staleness=1", "++checkpoint.keep=3")
    settings += ("++self_check.action=off",)
    run(whole, monkeypatch, *settings)
    shutil.copytree(
        whole, resumed, ignore=shutil.ignore_patterns("hf", "step-000004", "step-000006")
    )
    run(resumed, monkeypatch, *settings, "++resume=auto")
    assert fleets[0].subjects("rollout") == [1, 2, 3, 4, 5, 6]
    assert fleets[1].subjects("rollout") == [4, 5, 6]  # step 3 lies in the checkpoint of step 2
    assert figures(resumed) == figures(whole)
    assert [line["rollout/staleness"] for line in figures(whole)] == [0, 1, 1, 1, 1, 1]
    assert ("rollout", 3) not in stages(resumed) and ("update", 3) in stages(resumed)


def test_a_run_whose_ranks_see_another_directory_takes_no_step(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
):
    async def refuse(_: object, directory: Path, key: str) -> None:
        raise UserError(f"{key}: {directory} is another directory for policy-1")

    monkeypatch.setattr(SavingPolicy, "check_shared", refuse)
    with pytest.raises(UserError, match=f"output_dir: {tmp_path} is another directory"):
        run(tmp_path, monkeypatch)
    assert fleets[0].policy.updates == [] and fleets[0].events == []


def test_a_run_of_adapters_leaves_them_beside_the_policy_and_in_checkpoints_in_its_place(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
):
    save = SavingPolicy.save_checkpoint

    async def save_with_base(policy: SavingPolicy, directory: Path) -> None:
        await save(policy, directory)
        replace_json(directory / STATE_FILE, {"base": base_digest(str(POLICY))})

    monkeypatch.setattr(SavingPolicy, "save_checkpoint", save_with_base)
    lora = ("++policy.lora.rank=4", f"++model.path={POLICY}")
    run(tmp_path, monkeypatch, *lora, "++algorithm.num_steps=2")
    assert (tmp_path / "hf").is_dir() and (tmp_path / "adapter").is_dir()
    saved = tmp_path / "checkpoints/step-000002"
    assert (saved / "adapter").is_dir() and not (saved / "hf").exists()

    resumed = ("++algorithm.num_steps=3", "++resume=auto")
    assert run(tmp_path, monkeypatch, *lora, *resumed).told == [("after", 2), 3, True]
    other = shutil.copytree(POLICY, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with pytest.raises(UserError, match=r"is not the model that the adapters of .* were train"):
        run(tmp_path, monkeypatch, lora[0], f"++model.path={other}", *resumed)
    assert len(fleets) == 2  # the third was refused before it started


def test_a_run_on_given_answers_samples_in_no_step_and_goes_on_with_the_answers_that_come_next(
    fleets: list[FakeFleet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = tmp_path / "own.jsonl"
    rows = [{"prompt": f"Return {n}.", "completion": f"x = {n}"} for n in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["++recipe=sft", f"++recipe_args={{data: {data}, batch: 2}}"]
    run(tmp_path / "whole", monkeypatch, *given, "++algorithm.num_steps=4")
    run(tmp_path / "parted", monkeypatch, *given, "++algorithm.num_steps=2")
    resumed = ("++algorithm.num_steps=4", "++resume=auto")
    assert run(tmp_path / "parted", monkeypatch, *given, *resumed).told[0] == ("after", 2)

    def learned(fleet: FakeFleet) -> list[list[int]]:
        ranks = [m.microbatches_by_rank for m in fleet.policy.updates]
        return [sorted(t for rank in r for mb in rank for t in mb.target_ids_M) for r in ranks]

    whole, first, rest = map(learned, fleets)
    assert [*first, *rest] == whole and len(rest) == 2
    assert all(fleet.subjects("rollout") == [] for fleet in fleets)
    data.write_text(data.read_text().replace("x = 7", "x = 8"))
    with pytest.raises(ExceptionGroup) as caught:
        run(tmp_path / "whole", monkeypatch, *given, "++algorithm.num_steps=6", "++resume=auto")
    (error,) = leaves(caught.value)
    assert isinstance(error, UserError)
    assert "are not those that the run began with" in str(error)


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


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_only_informs_is_lost_with_one_line_each_and_the_run_goes_on(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(rl_run, "write_rollouts", no_space)
    monkeypatch.setattr(timeline, "write_all", no_space)
    monkeypatch.setattr(FakeTracker, "write", no_space)
    settings = ("++algorithm.num_steps=4", "++checkpoint.rollouts_every=1")
    tracker = run(tmp_path, monkeypatch, *settings)
    lost = {"evaluation/", "timeline.json", "fake", "rollouts/"}
    assert set(tracker.effort.missing) == lost
    words = said(capsys)
    assert all(words.count(f"{what} is not complete: ") == 1 for what in lost)
    assert words.count("No space left on device") == len(lost)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert (tmp_path / "hf").is_dir() and steps_of(tmp_path) == [2, 4]


def test_a_checkpoint_that_the_disk_does_not_take_leaves_the_older_ones_and_nothing_else(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    save_hf = SavingPolicy.save_hf

    async def save_with_room(policy: SavingPolicy, directory: Path) -> None:
        if "step-000004" in str(directory):
            (directory.parent / "half").write_text("half")
            raise SaveError(f"{directory} cannot be written: No space left on device (rank 1)")
        await save_hf(policy, directory)

    monkeypatch.setattr(SavingPolicy, "save_hf", save_with_room)
    seen: list[list[str]] = []

    def look(*_: Any) -> None:
        root = tmp_path / "checkpoints"
        seen.append(sorted(path.name for path in root.glob("*")) if root.is_dir() else [])

    monkeypatch.setattr(FakeTracker, "write", look)
    tracker = run(tmp_path, monkeypatch, "++algorithm.num_steps=6")
    words = said(capsys)
    assert words.count("step 4 is not saved") == 1
    assert "No space left on device (rank 1); the older checkpoints stay" in words
    assert steps_of(tmp_path) == [2, 6]
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert tracker.effort.missing == ()
    assert (tmp_path / "hf").is_dir()


def test_a_step_is_no_checkpoint_before_its_metrics_are_on_the_disk(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    append, full = metrics.append_lines, {2, 3}

    def append_with_room(path: Path, lines: list[dict[str, float]]) -> None:
        if lines[-1]["step"] in full:
            no_space()
        append(path, lines)

    monkeypatch.setattr(metrics, "append_lines", append_with_room)
    tracker = run(tmp_path, monkeypatch, "++algorithm.num_steps=4")
    assert "step 2 is not saved" in said(capsys)
    assert steps_of(tmp_path) == [4]
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert tracker.effort.missing == ()


def test_a_model_that_the_disk_does_not_take_ends_the_run_with_one_error(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
):
    async def save_without_room(_: SavingPolicy, directory: Path) -> None:
        (directory / "half").write_text("half")
        no_space()

    monkeypatch.setattr(SavingPolicy, "save_hf", save_without_room)
    with pytest.raises(SaveError, match=r"hf\.partial cannot be written: .*No space left"):
        run(tmp_path, monkeypatch, "++algorithm.num_steps=1")
    assert not list(tmp_path.glob("*hf*")) and not list(tmp_path.glob(".hf*"))


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


def steps_of(directory: Path) -> list[int]:
    return [checkpoint.step for checkpoint in complete_checkpoints(directory / "checkpoints")]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join("".join(capsys.readouterr()).split())


def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    run(tmp_path, monkeypatch, "++algorithm.num_steps=4")
    (tmp_path / "checkpoints/step-000004/state").write_text("0")
    (tmp_path / "hf").rmdir()
    resumed = run(tmp_path, monkeypatch, "++algorithm.num_steps=4", "++resume=auto")
    assert resumed.told == [("after", 2), 3, 4, True]
    words = said(capsys)
    assert "step-000004 is refused: state is 1 bytes too long (1 of 0)" in words
    assert "step-000002 after step 2" in words
    assert find_newest(tmp_path / "checkpoints").refused == ()  # it was written anew


def test_without_a_good_checkpoint_no_engine_is_started(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
):
    run(tmp_path, monkeypatch, "++algorithm.num_steps=2")
    (tmp_path / "checkpoints/step-000002/state").unlink()
    with pytest.raises(UserError, match="state is missing\nresume: nothing to go on from"):
        run(tmp_path, monkeypatch, "++algorithm.num_steps=2", "++resume=auto")
    assert len(fleets) == 1


@pytest.mark.parametrize(("minutes", "expected"), [("1e-7", [2, 3]), ("0", []), ("10", [])])
def test_minutes_say_when_a_checkpoint_is_due(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    minutes: str,
    expected: list[int],
):
    settings = ("++checkpoint.every=0", f"++checkpoint.minutes={minutes}")
    run(tmp_path, monkeypatch, "++algorithm.num_steps=3", *settings)
    assert steps_of(tmp_path) == expected


def test_the_line_after_a_checkpoint_says_how_long_it_took(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, monkeypatch, "++algorithm.num_steps=5", "++checkpoint.every=2")
    took = [line.get("time/checkpoint_s") for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert [seconds is not None for seconds in took] == [False, False, True, False, True]


BY_HAND = ("++algorithm.num_steps=4", "++checkpoint.every=0", "++checkpoint.minutes=0")


def stop_in(
    where: type[Any], method: str, monkeypatch: pytest.MonkeyPatch, call: int, waits_s: float
) -> None:
    """Send SIGTERM when a method is called for the so-many-th time, which then takes longer."""
    original = getattr(where, method)
    numbers = iter(range(1, 10_000))

    async def stopping(*args: Any, **kwargs: Any) -> Any:
        result = await original(*args, **kwargs)
        if next(numbers) == call:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(waits_s)
        return result

    monkeypatch.setattr(where, method, stopping)


def test_a_signal_saves_the_last_complete_step(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    stop_in(FakeReward, "judge", monkeypatch, call=6, waits_s=60)  # while step 3 is sampled
    with pytest.raises(StoppedError, match="SIGTERM"):
        run(tmp_path, monkeypatch, *BY_HAND)
    assert steps_of(tmp_path) == [2]
    assert find_newest(tmp_path / "checkpoints").refused == ()
    assert "saving step 2 before the end; a second signal ends the run at once" in said(capsys)
    resumed = run(tmp_path, monkeypatch, *BY_HAND, "++resume=auto")
    assert resumed.told == [("after", 2), 3, 4, True]


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_step_that_has_begun_to_change_the_weights_is_finished_and_saved(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    staleness: int,
):
    async def trust(*_: object) -> None:
        """These engines have no seats that could be asked."""

    monkeypatch.setattr(RlRun, "_self_check", trust)
    stop_in(SavingPolicy, "update", monkeypatch, call=3, waits_s=0.05)
    how = (*BY_HAND, f"++algorithm.max_staleness={staleness}")
    with pytest.raises(StoppedError, match="SIGTERM"):
        run(tmp_path, monkeypatch, *how)
    assert steps_of(tmp_path) == [3]
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert "finishing step 3 before the end; a second signal ends the run at once" in said(capsys)
    resumed = run(tmp_path, monkeypatch, *how, "++resume=auto")
    assert resumed.told == [("after", 3), 4, True]


def test_a_step_that_takes_too_long_is_not_waited_for(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    stop_in(SavingPolicy, "update", monkeypatch, call=3, waits_s=60)
    with pytest.raises(StoppedError, match="SIGTERM"):
        run(tmp_path, monkeypatch, *BY_HAND, "++checkpoint.stop_s=0.05")
    assert steps_of(tmp_path) == []
    assert "step 3 is not saved: that takes longer than checkpoint.stop_s=0.05" in said(capsys)


def test_a_step_that_fails_while_it_is_finished_is_not_saved(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    async def refuse(_: RlRun, __: object, report: StepReport) -> None:
        if report.step == 3:
            raise EngineError("the engines are gone")

    stop_in(SavingPolicy, "update", monkeypatch, call=3, waits_s=0.05)
    monkeypatch.setattr(RlRun, "_self_check", refuse)
    with pytest.raises(StoppedError, match="SIGTERM"):
        run(tmp_path, monkeypatch, *BY_HAND)
    assert "step 3 is not saved: the engines are gone" in said(capsys)


def test_a_signal_lets_a_checkpoint_be_finished(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
):
    stop_in(SavingPolicy, "save_checkpoint", monkeypatch, call=2, waits_s=0.05)
    with pytest.raises(StoppedError, match="SIGTERM"):
        run(tmp_path, monkeypatch, "++algorithm.num_steps=9", "++checkpoint.every=2")
    assert steps_of(tmp_path) == [2, 4]
    assert find_newest(tmp_path / "checkpoints").refused == ()


def test_ranks_that_do_not_answer_do_not_hold_up_the_end(
    tmp_path: Path,
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    stop_in(SavingPolicy, "save_checkpoint", monkeypatch, call=2, waits_s=60)
    every = ("++algorithm.num_steps=9", "++checkpoint.every=2")
    with pytest.raises(StoppedError, match="SIGTERM"):
        run(tmp_path, monkeypatch, *every, "++checkpoint.stop_s=0.05")
    assert find_newest(tmp_path / "checkpoints").refused == ()
    assert steps_of(tmp_path) == [2]
    assert "step 4 is not saved: that takes longer than checkpoint.stop_s=0.05 s" in said(capsys)


@pytest.mark.parametrize(("lost_at", "again_from"), [(1, 0), (2, 0), (3, 2), (4, 2)])
def test_a_run_that_loses_its_policy_goes_back_to_its_newest_checkpoint_and_ends_by_itself(
    fleets: list[FakeFleet],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lost_at: int,
    again_from: int,
):
    monkeypatch.setattr(SavingPolicy, "lost_at", lost_at)
    tracker = run(tmp_path, monkeypatch, "++algorithm.num_steps=4", "++algorithm.max_staleness=0")
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert ("after", again_from) in tracker.told[1:]
    (fleet,) = fleets
    versions = fleet.subjects("published")
    before = list(range(1, lost_at))
    loaded = [again_from] if again_from else []
    assert versions == [*before, 0, *loaded, *range(again_from + 1, 5)]
    assert [step for name, step in stages(tmp_path) if name == "update"] == [1, 2, 3, 4]
    assert complete_checkpoints(tmp_path / "checkpoints")[-1].step == 4


def test_what_losses_cost_in_steps_that_are_taken_again_is_not_forgotten(
    fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    generate = FakeRollout.generate

    def lossy(self: FakeRollout, asks: Any, step: int) -> Any:
        if step == 3 and not fleets[0].noted and not fleets[0].policy.updates[2:]:
            fleets[0].note("fault/reward_restarts", 2)
        return generate(self, asks, step)

    monkeypatch.setattr(FakeRollout, "generate", lossy)
    monkeypatch.setattr(SavingPolicy, "lost_at", 4)
    run(tmp_path, monkeypatch, "++algorithm.num_steps=4", "++algorithm.max_staleness=0")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("fault/reward_restarts") for line in lines] == [None, None, 2.0, None]


def test_every_named_set_is_evaluated_and_every_source_is_counted(
    tmp_path: Path, fleets: list[FakeFleet], monkeypatch: pytest.MonkeyPatch
):
    files = {name: tmp_path / f"{name}.parquet" for name in ("main", "extra", "a", "b")}
    for number, (name, path) in enumerate(files.items()):
        problems = minipy.make_prompts("train" if number > 1 else "eval", 4, number)
        write_prompts(path, [replace(p, id=f"{name}-{p.id}") for p in problems])
    sources = f"{{a: {{path: '{files['a']}', weight: 3}}, b: {{path: '{files['b']}'}}}}"
    given = [
        "data=parquet",
        f"++data.eval_path={files['main']}",
        f"++data.eval_sets={{extra: '{files['extra']}'}}",
        f"++data.sources={sources}",
        "++algorithm.prompts_per_step=4",
        "++algorithm.num_steps=2",
        "++evaluation.every=1",
    ]
    run(tmp_path / "run", monkeypatch, *given)
    lines = (tmp_path / "run/metrics.jsonl").read_text(encoding="ascii").splitlines()
    names = {"eval/pass@1", "eval/extra/pass@1", "source/a/reward", "source/b/reward"}
    assert all(names <= json.loads(line).keys() for line in lines)
    (fleet,) = fleets
    asked = [str(one) for one in fleet.subjects("generated")]
    assert [sum(name.startswith(f"{of}-") for name in asked) for of in "ab"] == [6, 2]
    for step in (0, 1, 2):
        assert (tmp_path / f"run/evaluation/step-{step:06d}.parquet").is_file()
        assert (tmp_path / f"run/evaluation/extra/step-{step:06d}.parquet").is_file()
