"""An arm of an ablation on fakes: what its lines say, and what it is measured with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.jobs import ablation
from actors.jobs.ablation import Arm
from actors.stages.evaluation import Evaluation
from rl.base.console import Console
from rl.report.arms import ArmRun, read_runs
from rl.types import Ask, JudgedGroup
from tests.settings import run_config
from tests.unit.actors.stages.test_rl_run import SavingPolicy
from tests.unit.rl.fakes import FakeFleet, group_of_tests, make_group, make_judged

pytestmark = pytest.mark.unit


class Ablation:
    """What an arm does on a fleet of fakes."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.output = directory / "runs.jsonl"
        self.specs: list[Any] = []
        self.asked: list[Ask] = []

        @asynccontextmanager
        async def start_fleet(_: Any, specs: Any, __: str) -> AsyncIterator[FakeFleet]:
            self.specs.append(specs)
            (directory / "initial").mkdir()
            fleet = FakeFleet()
            fleet.policy = SavingPolicy(fleet.events, fleet.rollout)
            yield fleet

        async def evaluate(
            _: Any, asks: Sequence[Ask], __: Any, ___: int, **____: Any
        ) -> Evaluation:
            self.asked += asks
            groups = [judged_answer(ask, number) for number, ask in enumerate(asks)]
            return Evaluation(groups_P=tuple(groups), num_executed=0)

        monkeypatch.setattr(ablation, "start_fleet", start_fleet)
        monkeypatch.setattr(ablation, "evaluate", evaluate)

    def run(
        self, *overrides: str, seeds: tuple[int, ...] = (0,), exam: str | None = None
    ) -> dict[str, list[ArmRun]]:
        """What `start` leaves."""
        self.start(*overrides, seeds=seeds, exam=exam)
        return read_runs(self.output)

    def start(
        self, *overrides: str, seeds: tuple[int, ...] = (0,), exam: str | None = None
    ) -> None:
        """An arm of two steps of two problems with eight answers of four tokens."""
        settings = ["data.num_train=8", "data.num_eval=3", "algorithm.prompts_per_step=2"]
        settings += ["algorithm.num_steps=2", "evaluation.every=1", "evaluation.num_samples=2"]
        cfg = run_config([*settings, *overrides])
        arm = Arm(label="arm", seeds=seeds, exam=exam)
        asyncio.run(ablation._run_arm(cfg, arm, self.output, Console()))  # pyright: ignore[reportPrivateUsage]  # without Ray


def judged_answer(ask: Ask, number: int) -> JudgedGroup:
    """Right and wrong programs, or tests of which the right program fails some."""
    if ask.prompt is not ask.problem:
        passed_NM = np.array([[True, number % 3 == 0], [False, True]])
        return group_of_tests(ask.problem, passed_NM)
    group = replace(make_group(ask.prompt, 2), ask=ask)
    return make_judged(group, (0.0, 1.0), (True, False))


@pytest.fixture
def arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ablation:
    """An ablation in a directory of its own."""
    return Ablation(tmp_path, monkeypatch)


def test_a_line_says_what_was_sampled_and_how_often_the_optimizer_stepped(arm: Ablation) -> None:
    (first, second) = arm.run("algorithm.minibatches_per_step=2", seeds=(0, 1))["arm"]
    assert first.sampled_tokens == second.sampled_tokens == 2 * 2 * 8 * 4
    assert first.optimizer_steps == second.optimizer_steps == 2 * 2


def test_a_line_says_what_each_problem_does_to_each_mark(arm: Ablation) -> None:
    (run,) = arm.run(exam="cure")["arm"]
    assert run.marks["eval/test_right"] == pytest.approx(2 / 3)
    values = run.shares["eval/test_right"]
    assert values.keys() == run.passed.keys()
    assert sorted(values.values()) == pytest.approx([0.5, 0.5, 1.0], abs=1e-5)
    stored = json.loads(arm.output.read_text())["shares"]["eval/test_right"]
    assert len(stored) == 3


@pytest.mark.parametrize(("recipe", "updates"), [("grpo", 1), ("sol_ver", 2)])
def test_the_learning_rate_is_laid_out_for_the_optimizer_steps_of_one_seed(
    arm: Ablation, monkeypatch: pytest.MonkeyPatch, recipe: str, updates: int
) -> None:
    async def nothing(*_: Any) -> dict[str, object]:
        return {}

    monkeypatch.setattr(ablation, "_run", nothing)
    arm.start(f"recipe={recipe}", "algorithm.minibatches_per_step=2", seeds=(0, 1, 2))
    assert arm.specs[0].train.total_steps == 2 * 2 * updates


def test_held_out_answers_are_sampled_as_the_evaluation_says(arm: Ablation) -> None:
    arm.run("evaluation.temperature=0.5")
    assert {ask.sampling.temperature for ask in arm.asked} == {0.5}


def test_the_last_step_is_measured_whatever_the_steps_between_evaluations(arm: Ablation) -> None:
    (run,) = arm.run("algorithm.num_steps=3", "evaluation.every=2")["arm"]
    assert list(run.pass_at_1) == [0, 2, 3]
