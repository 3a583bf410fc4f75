"""What a run does with its probe: hidden tests, an alarm that stops, a history that resumes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from actors.plan.problems import load_problems, probe_problems
from actors.stages.probe import Asking, Probe
from conf.errors import SandboxError
from conf.schema import Config
from reward.verify.verdict import Program, ProgramResult, Verifier
from rl.base.best_effort import BestEffort
from rl.base.console import Console
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from rl.run.probe import Problems
from rl.run.rollouts import read_rollouts
from rl.run.summary import AlarmFigures, Watch
from rl.types import (
    JudgedGroup,
    Prompt,
    PromptGroup,
    SamplingConfig,
    Verdict,
)
from tests.settings import run_config
from tests.unit.rl.fakes import FakeFleet, FakeReward, make_judged

pytestmark = pytest.mark.unit

PROBLEMS = [
    dataclasses.replace(prompt, id=f"p{i}") for i, prompt in enumerate(make_prompts("eval", 16, 5))
]


class FakeVerifier:
    """Lets as many programs pass as the test says."""

    def __init__(self) -> None:
        self.num_executed = 0
        self.share = 1.0
        self.fails = False

    def verify(self, programs_N: list[Program]) -> list[ProgramResult]:
        if self.fails:
            raise SandboxError("no place to run a program")
        self.num_executed += len(programs_N)
        right = round(self.share * len(programs_N))
        verdicts = [Verdict.PASSED] * right + [Verdict.WRONG_ANSWER] * (len(programs_N) - right)
        order = np.random.default_rng(0).permutation(len(verdicts))
        return [ProgramResult(verdict=verdicts[i], num_passed=0, num_tests=1) for i in order]


class SeeingReward(FakeReward):
    """Remembers the problems as they were shown, and gives the reward that the test says."""

    def __init__(self) -> None:
        super().__init__([])
        self.shown: list[Prompt] = []
        self.reward = 1.0

    def judge_one(self, group: PromptGroup) -> JudgedGroup:
        self.shown.append(group.prompt)
        return make_judged(group, [self.reward] * len(group.completions_G))


class Run:
    """A probe with its fakes."""

    def __init__(self, directory: Path, *overrides: str) -> None:
        cfg = run_config(["++probe.every=2", "++probe.num_samples=2", *overrides])
        self.fleet = FakeFleet()
        self.reward = SeeingReward()
        self.fleet.reward = self.reward
        self.saved: list[Path] = []
        self.fleet.policy.save_hf = self._save_hf  # pyright: ignore[reportAttributeAccessIssue]
        self.verifier = FakeVerifier()
        sampling = SamplingConfig(group_size=8, max_tokens=8)
        by_tests = cfg.reward.kind == "execution"
        asking = Asking(problems=PROBLEMS, sampling=sampling, by_tests=by_tests)
        self.probe = Probe(cfg, asking, directory, Console(), BestEffort(pytest.fail))

    async def _save_hf(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.saved.append(directory)

    def take(self, step: int, share: float, reward: float) -> dict[str, float]:
        self.verifier.share, self.reward.reward = share, reward
        verifier = cast("Verifier", self.verifier)
        return asyncio.run(self.probe.take(cast("Any", self.fleet), verifier, step))

    def be_hacked(self, first: int = 0) -> list[dict[str, float]]:
        curve = [(0.9, 1.0), (0.9, 1.1), (0.9, 1.2), (0.4, 1.5), (0.3, 2.0), (0.2, 2.5)]
        return [self.take(first + 2 * i, *values) for i, values in enumerate(curve)]


@pytest.mark.parametrize(
    ("override", "hidden"),
    [("reward=codescaler", True), ("reward=hybrid", True), ("reward=execution", False)],
)
def test_a_reward_model_is_asked_without_the_tests_even_by_a_hybrid(tmp_path, override, hidden):
    run = Run(tmp_path, override)
    metrics = run.take(0, 0.5, 1.0)
    assert {prompt.tests is None for prompt in run.reward.shown} == {hidden}
    assert metrics["probe/pass@1"] == 0.5
    assert metrics["probe/num_executed"] == run.verifier.num_executed == 32
    rows = read_rollouts(tmp_path / "probe/step-000000.parquet")
    assert [row.verdict for row in rows].count(
        Verdict.PASSED
    ) == 16  # kept beside what the judge said
    assert {(row.score, row.num_tests) for row in rows} == {(1.0, 1)}


def test_a_hacked_run_is_told_of_once_and_goes_on_where_the_action_is_to_warn(tmp_path, capsys):
    run = Run(tmp_path)
    fired = [metrics["alarm/fired"] for metrics in run.be_hacked()]
    assert fired[:3] == [0.0] * 3 and fired[-1] == 1.0
    assert capsys.readouterr().out.count("ALARM") == 1
    assert run.probe.stopped_at is None and run.saved == []
    summary = run.probe.summary(loop_s=100.0)
    first = 2 * fired.index(1.0)
    assert summary.alarm == AlarmFigures(
        action="warn", fired_at=[first], stopped_at=None, best_policy=None
    )
    assert summary.num_executed == 6 * 32
    assert summary.probe is not None and summary.probe.num_probes == 6


def test_stop_ends_the_run_and_keeps_the_best_policy_before_it(tmp_path):
    run = Run(tmp_path, "++alarm.action=stop")
    metrics = run.be_hacked()
    assert run.probe.stopped_at == 2 * [m["alarm/fired"] for m in metrics].index(1.0)
    kept = list((tmp_path / "best").glob("step-*/hf"))
    assert kept == [tmp_path / "best/step-000002/hf"]  # the first two of equals
    alarm = run.probe.summary(100.0).alarm
    assert alarm is not None and alarm.best_policy == str(kept[0])


def test_a_resumed_run_knows_what_was_found_before_its_checkpoint(tmp_path):
    Run(tmp_path, "++alarm.action=stop").be_hacked()
    whole = [json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines()]
    resumed = Run(tmp_path, "++alarm.action=stop")
    resumed.probe.restore(4)
    assert resumed.take(6, 0.4, 1.5)["alarm/pass_drop"] > 0.2
    again = [json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines()]
    assert again == whole[:4]
    resumed.probe.restore(0)
    assert not (tmp_path / "probe.jsonl").read_text()


def test_a_sandbox_that_fails_costs_a_reading_and_not_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reward.verify.execute.time.sleep", lambda _: None)
    run = Run(tmp_path)
    run.verifier.fails = True
    assert run.take(2, 1.0, 1.0) == {}
    assert "step 2 is left out: no place to run a program" in capsys.readouterr().out


def test_probes_are_due_every_so_many_steps_and_never_without_problems(tmp_path, capsys):
    run = Run(tmp_path)
    assert [run.probe.due(step) for step in (0, 1, 2, 3, 4)] == [True, False, True, False, True]
    cfg = run_config()
    sampling = SamplingConfig(group_size=8, max_tokens=8)
    nothing = Asking(problems=[], sampling=sampling, by_tests=False)
    none = Probe(cfg, nothing, tmp_path, Console(), BestEffort(pytest.fail))
    assert not any(none.due(step) for step in range(10))
    none.announce()
    assert "probe: off" in capsys.readouterr().out
    assert none.summary(1.0) == Watch()


def parts(cfg: Config) -> tuple[Problems, Problems]:
    problems = load_problems(cfg.data, cfg.seed)
    return probe_problems(cfg.probe, cfg.data, cfg.algorithm.prompts_per_step, *problems)


def test_the_probe_is_carved_out_of_training_unless_it_has_a_file(tmp_path):
    for split, num in (("train", 200), ("eval", 20)):
        write_prompts(tmp_path / f"{split}.parquet", make_prompts(split, num, 0))  # pyright: ignore[reportArgumentType]
    write_prompts(tmp_path / "probe.parquet", make_prompts("eval", 30, 9))
    paths = [f"++data.{split}_path={tmp_path / split}.parquet" for split in ("train", "eval")]
    train, probe = parts(run_config(["data=parquet", *paths]))
    assert len(probe) == 20 and len(train) == 180
    file = f"++probe.path={tmp_path / 'probe.parquet'}"
    train, probe = parts(run_config(["data=parquet", *paths, file]))
    assert len(probe) == 30 and len(train) == 200
    assert parts(run_config(["data=parquet", *paths, "++probe.every=0"]))[1] == []
