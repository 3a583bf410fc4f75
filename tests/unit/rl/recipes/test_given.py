"""Supervised and preference runs: which examples a step learns, and that nothing is sampled."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from conf.errors import UserError
from rl.loop import LoopConfig, run_loop
from rl.loss import DpoObjective, NllObjective
from rl.metrics import check_names
from rl.problems.prompts import PromptSampler
from rl.recipes.given import Dpo, Given, Sft
from rl.recipes.recipe import History
from rl.step import Batch, collect, learn
from rl.types import Sample, StepReport
from tests.unit.rl.fakes import FakeFleet, make_prompts, setup

pytestmark = pytest.mark.unit


def example(number: int, num_answers: int) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            prompt_id=f"row-{number}",
            sample_idx=0,
            token_ids=np.array([1, number, 2, side], np.int32),
            num_prompt_tokens=2,
            rollout_logprobs=np.zeros(2, np.float32),
            advantage=0.0,
            policy_version=0,
        )
        for side in range(num_answers)
    )


def sft(num: int = 10, batch: int = 4, **changes: object) -> Sft:
    return Sft(setup(**changes), [example(n, 1) for n in range(num)], batch)


def learned(recipe: Given, step: int) -> list[int]:
    (update,) = recipe.teach(step, (), recipe.start()).updates
    return [int(sample.token_ids[1]) for sample in update.samples]


def test_each_pass_learns_every_example_once_in_an_order_of_its_own():
    recipe = sft(num=10, batch=5)
    passes = [[*learned(recipe, 2 * n + 1), *learned(recipe, 2 * n + 2)] for n in range(3)]
    assert [sorted(one) for one in passes] == [list(range(10))] * 3
    assert len({tuple(one) for one in passes}) == 3


def test_a_batch_goes_on_across_the_end_of_a_pass():
    recipe = sft(num=10, batch=4)
    steps = [learned(recipe, step) for step in range(1, 6)]  # two passes
    assert {len(step) for step in steps} == {4}
    assert set(Counter(n for step in steps for n in step).values()) == {2}
    assert recipe.teach(5, (), recipe.start()).metrics == {"data/passes": 2.0}


def test_the_order_depends_on_the_seed_and_on_nothing_that_was_done_before():
    recipe = sft()
    later_first = learned(sft(), 3)
    assert [learned(recipe, step) for step in (1, 2, 3)][-1] == later_first
    other = dataclasses.replace(setup().sampling, seed=1)
    assert learned(sft(sampling=other), 1) != learned(recipe, 1)


def test_pairs_stay_whole_and_are_held_against_the_initial_policy():
    recipe = Dpo(setup(minibatches_per_step=2), [example(n, 2) for n in range(8)], 4, 0.3)
    (update,) = recipe.teach(1, (), recipe.start()).updates
    assert recipe.needs_reference
    assert update.group_of == 2
    assert update.objective == DpoObjective(beta=0.3, reference="initial")
    sides = [(s.prompt_id, int(s.token_ids[-1])) for s in update.samples]
    assert [side for _, side in sides] == [0, 1] * 4
    assert [one for one, _ in sides[0::2]] == [one for one, _ in sides[1::2]]
    fleet = FakeFleet()
    batch = asyncio.run(collect(1, fleet, recipe, make_prompts(2), recipe.start()))
    asyncio.run(learn(1, batch, fleet, on_policy=True))
    assert [minibatch.num_samples for minibatch in fleet.policy.updates] == [4, 4]


def looped(recipe: Given, first_step: int, history: History) -> tuple[FakeFleet, list[StepReport]]:
    fleet, reports = FakeFleet(), list[StepReport]()

    async def after(report: StepReport, batch: Batch) -> None:
        assert batch.groups_P == ()
        reports.append(report)

    cfg = LoopConfig(num_steps=4, prompts_per_step=2, max_staleness=0, first_step=first_step)
    loop = run_loop(
        fleet, PromptSampler(make_prompts(4), 0), recipe, cfg, history=history, after=after
    )
    asyncio.run(asyncio.wait_for(loop, 5.0))
    return fleet, reports


def trained_on(fleet: FakeFleet) -> list[list[int]]:
    return [
        sorted(int(t) for rank in m.microbatches_by_rank for mb in rank for t in mb.target_ids_M)
        for m in fleet.policy.updates
    ]


def test_a_step_that_asks_nothing_samples_nothing_judges_nothing_and_reports_what_it_has():
    recipe = sft()
    fleet, reports = looped(recipe, 1, History({0: recipe.start()}, 0))
    assert {what for what, _ in fleet.events} == {"update", "published"}
    assert {type(objective) for objective in fleet.policy.objectives} == {NllObjective}
    for report in reports:
        check_names(report.metrics)
        assert not {"reward/mean", "time/rollout_s"} & report.metrics.keys()
        assert report.metrics["rollout/staleness"] == 0.0
    assert reports[-1].metrics["data/passes"] == 1.6


def test_a_resumed_run_learns_what_an_uninterrupted_one_learns():
    whole, _ = looped(sft(), 1, History({0: sft().start()}, 0))
    rest, _ = looped(sft(), 3, History({2: sft().start()}, 0))
    assert trained_on(rest) == trained_on(whole)[2:]


def refused(examples: Sequence[tuple[Sample, ...]], batch: int = 4) -> str:
    with pytest.raises(UserError) as error:
        recipe = Sft(setup(), examples, batch)
        recipe.teach(3, (), sft().start())
    return str(error.value)


def test_other_examples_than_those_that_the_run_began_with_are_refused():
    changed = [example(n, 1) for n in (*range(9), 11)]
    assert "are not those that the run began with" in refused(changed)


def test_a_batch_of_more_examples_than_there_are_is_refused():
    assert "give at most recipe_args.batch=3" in refused([example(n, 1) for n in range(3)])
