"""Problems that are drawn by what they taught: which, how often, and the same after a restart."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from actors.plan.problems import make_sampler
from conf.schema import CurriculumConfig
from conf.validate import ConfigError
from rl.loop import LoopConfig, run_loop
from rl.metrics import check_names
from rl.problems.curriculum import KEY, CurriculumSampler, difference, draw_metrics
from rl.problems.mixing import MixedSampler, by_source
from rl.problems.prompts import PromptSampler
from rl.recipes.recipe import History
from rl.step import Batch
from rl.types import JudgedGroup, Prompt, StepReport, Task
from tests.settings import run_config
from tests.unit.rl.fakes import FakeFleet, make_group, make_judged, make_prompts, recipe

pytestmark = pytest.mark.unit


def sampler_of(
    prompts: Sequence[Prompt], share: float = 0.5, seed: int = 0, newest_weight: float = 0.5
) -> CurriculumSampler:
    cfg = CurriculumConfig(share=share, newest_weight=newest_weight)
    return CurriculumSampler(prompts, seed, {}, cfg)


def judged(prompt: Prompt, *rewards: float, masked: Sequence[bool] | None = None) -> JudgedGroup:
    group = make_judged(make_group(prompt, len(rewards)), rewards)
    mask = None if masked is None else np.array(masked, np.bool_)
    return dataclasses.replace(group, masked_G=mask)


def names(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.id for prompt in prompts]


@pytest.mark.parametrize(("solved", "size"), [(0, 4), (1, 4), (2, 4), (4, 4)])
def test_with_tests_it_is_the_root_of_p_times_one_less_p(solved: int, size: int) -> None:
    (prompt,) = make_prompts(1)
    rate = solved / size
    group = judged(prompt, *([1.0] * solved + [0.0] * (size - solved)))
    assert difference(group) == pytest.approx(math.sqrt(rate * (1 - rate)))


def test_what_carries_no_loss_makes_no_difference() -> None:
    (prompt,) = make_prompts(1)
    assert difference(judged(prompt, 9.0, 1.0, 1.0, masked=[True, False, False])) == 0
    assert difference(judged(prompt, 9.0, 1.0, masked=[True, True])) == 0


@pytest.mark.parametrize(
    "other", [{"task": Task.TEST}, {"task": Task.SUITE}, {"task": Task.VERDICT}, {"prefix": "def"}]
)
def test_only_programs_that_the_policy_wrote_from_the_beginning_count(
    other: dict[str, Any],
) -> None:
    prompt, alone = make_prompts(2)
    groups = [judged(prompt, 0.0, 1.0), judged(prompt, -50.0, 50.0), judged(alone, -50.0, 50.0)]
    for index in (1, 2):
        group = groups[index].group
        group = dataclasses.replace(group, ask=dataclasses.replace(group.ask, **other))
        groups[index] = dataclasses.replace(groups[index], group=group)
    assert sampler_of([prompt, alone]).remember(groups, {}) == {KEY: {"p0": 0.5}}
    metrics = draw_metrics(groups, {"p0", "p1"})
    assert metrics["curriculum/drawn_std"] == metrics["curriculum/drawn_reward"] == 0.5


def test_problems_are_drawn_as_often_as_they_taught_and_flat_ones_come_in_their_epoch_alone() -> (
    None
):
    prompts = make_prompts(4)
    sampler = sampler_of(prompts)
    state = {KEY: {"p0": 0.0, "p1": 0.1, "p2": 0.4, "p3": 0.0}}
    drawn: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for step in range(1, 2001):
        taken = sampler.take(2, step, state)
        assert len({p.id for p in taken}) == 2
        drawn.update(sampler.drawn(2, step, state))
        whole.update(names(taken))
    # Half of the problems come from the epochs, 500 times each; while p1 or p2 does, the other one
    # is drawn, and else p2 is with four chances in five.
    assert drawn["p0"] == drawn["p3"] == 0
    assert drawn["p2"] == pytest.approx(500 + 1000 * 0.8, abs=60)
    assert whole["p0"] == whole["p3"] == 500


def test_a_problem_that_was_not_seen_is_drawn_like_the_mean_of_those_that_were() -> None:
    prompts = make_prompts(40)
    sampler = sampler_of(prompts)
    for known in ({}, {"p0": 0.3}, {"p0": 0.6, "p1": 0.0}):
        drawn: Counter[str] = Counter()
        for step in range(1, 4001):
            drawn.update(sampler.drawn(2, step, {KEY: known}))
        others = [drawn[f"p{i}"] for i in range(2, 40)]
        assert np.mean(others) == pytest.approx(100, abs=6)
        assert drawn["p0"] == pytest.approx(200 if len(known) == 2 else 100, abs=40)


def test_where_nothing_taught_anything_all_are_drawn_alike() -> None:
    prompts = make_prompts(4)
    state = {KEY: dict.fromkeys(names(prompts), 0.0)}
    drawn: Counter[str] = Counter()
    for step in range(1, 1001):
        drawn.update(sampler_of(prompts).drawn(2, step, state))
    assert all(count == pytest.approx(250, abs=50) for count in drawn.values())


def test_the_mean_moves_to_the_newest_answers_and_several_groups_of_a_problem_are_one() -> None:
    prompts = make_prompts(3)
    sampler = sampler_of(prompts, newest_weight=0.25)
    first = sampler.remember([judged(prompts[0], 0.0, 1.0), judged(prompts[0], 1.0, 1.0)], {})
    assert first == {KEY: {"p0": 0.25}}
    then = sampler.remember([judged(prompts[0], 0.0, 2.0), judged(prompts[2], 3.0, 3.0)], first)
    assert then == {KEY: {"p0": 0.25 + 0.25 * 0.75, "p2": 0.0}}
    other = Prompt(id="made", messages=())  # a recipe may ask about problems of its own
    assert sampler.remember([judged(other, 0.0, 1.0)], then) == then


def test_without_a_share_nothing_is_drawn_or_kept() -> None:
    plain = PromptSampler(make_prompts(6), 0)
    assert plain.remember([judged(make_prompts(1)[0], 0.0, 1.0)], {}) == {}
    assert plain.drawn(2, 1, {KEY: {"p0": 1.0}}) == set()
    assert plain.take(2, 1, {KEY: {"p0": 1.0}}) == plain.take(2, 1)


def test_a_set_smaller_than_a_step_is_taken_whole() -> None:
    assert sorted(names(sampler_of(make_prompts(3)).take(8, 1))) == ["p0", "p1", "p2"]
    assert sampler_of([]).take(8, 1) == []
    assert names(sampler_of(make_prompts(1)).take(8, 1)) == ["p0"]


def test_every_source_draws_from_its_own() -> None:
    prompts = make_prompts(12)
    source_of = {p.id: "a" if int(p.id[1:]) < 6 else "b" for p in prompts}
    shares = by_source({"a": 2, "b": 4}, source_of)
    sampler = MixedSampler(prompts, 0, shares, "data.sources", sampler_of)
    state = sampler.remember([judged(p, 0.0, 1.0) for p in prompts[5:8]], {})
    assert state == {KEY: {"p5": 0.5, "p6": 0.5, "p7": 0.5}}
    for step in range(1, 20):
        taken = names(sampler.take(6, step, state))
        drawn = sampler.drawn(6, step, state)
        assert len(set(taken)) == 6 and drawn <= set(taken)
        assert sum(source_of[name] == "a" for name in taken) == 2
        assert sum(source_of[name] == "a" for name in drawn) == 1


def looped(
    first_step: int, history: History, max_staleness: int, turns: int = 0
) -> tuple[FakeFleet, list[Mapping[str, Any]], list[StepReport]]:
    """Steps up to 8; the states that a checkpoint of each would hold."""
    fleet = FakeFleet()
    fleet.rollout.version = first_step - 1
    fleet.policy.turns = turns
    fleet.reward.rewards = {f"p{i}": [0.0, 0.0, float(i % 3 == 0)] for i in range(12)}
    stored: list[Mapping[str, Any]] = []
    reports: list[StepReport] = []

    async def after(report: StepReport, batch: Batch) -> None:
        assert len(batch.groups_P) == 4
        stored.append(json.loads(json.dumps({str(k): v for k, v in history.states.items()})))
        reports.append(report)

    cfg = LoopConfig(
        num_steps=8, prompts_per_step=4, max_staleness=max_staleness, first_step=first_step
    )
    sampler = sampler_of(make_prompts(12))
    loop = run_loop(fleet, sampler, recipe(), cfg, history=history, after=after)
    asyncio.run(asyncio.wait_for(loop, 5.0))
    return fleet, stored, reports


@pytest.mark.parametrize("turns", [0, 100])  # of the learner: the producer is late, or early
@pytest.mark.parametrize("max_staleness", [0, 1, 2])
def test_a_step_draws_with_the_state_of_as_many_steps_before_whatever_the_timing(
    max_staleness: int, turns: int
) -> None:
    fleet, stored, _ = looped(1, History({0: {}}, max_staleness), max_staleness, turns)
    states = {0: {}} | {step: found[str(step)] for step, found in enumerate(stored, start=1)}
    sampler = sampler_of(make_prompts(12))
    expected = [
        prompt.id
        for step in range(1, 9)
        for prompt in sampler.take(4, step, states[max(0, step - 1 - max_staleness)])
    ]
    assert fleet.subjects("generated") == expected


@pytest.mark.parametrize("max_staleness", [0, 1, 2])
def test_a_resumed_run_draws_what_an_uninterrupted_one_does(max_staleness: int) -> None:
    whole, stored, _ = looped(1, History({0: {}}, max_staleness), max_staleness)
    asked = whole.subjects("generated")
    plain = [p.id for s in range(1, 9) for p in PromptSampler(make_prompts(12), 0).take(4, s)]
    assert asked != plain
    for step in range(1, 8):
        states = {int(known): state for known, state in stored[step - 1].items()}
        turns = 100 * (step % 2)  # a slow learner, beside whom the producer is ahead
        resumed, again, _ = looped(step + 1, History(states, max_staleness), max_staleness, turns)
        assert resumed.subjects("generated") == asked[4 * step :]
        assert again == stored[step:]


def test_the_loop_says_what_was_drawn_and_what_it_taught() -> None:
    _, _, reports = looped(1, History({0: {}}, 0), 0)
    for report in reports:
        check_names(report.metrics)
        assert report.metrics["curriculum/num_drawn"] == 2
    late = [report.metrics for report in reports[2:]]
    assert np.mean([m["curriculum/drawn_std"] for m in late]) > np.mean(
        [m["curriculum/epoch_std"] for m in late]
    )


def test_figures_of_the_drawn_are_apart_from_those_of_the_epoch() -> None:
    one, other = make_prompts(2)
    found = draw_metrics([judged(one, 0.0, 1.0), judged(other, 1.0, 1.0)], {"p0"})
    assert found == {
        "curriculum/num_drawn": 1.0,
        "curriculum/drawn_std": 0.5,
        "curriculum/drawn_reward": 0.5,
        "curriculum/epoch_std": 0.0,
        "curriculum/epoch_reward": 1.0,
    }


def test_a_run_draws_only_where_it_is_told_to() -> None:
    prompts = make_prompts(20)
    cfg = run_config(["++algorithm.prompts_per_step=4"])
    assert type(make_sampler(cfg, prompts, {})) is PromptSampler
    cfg = run_config(["++algorithm.prompts_per_step=4", "++data.curriculum.share=0.5"])
    assert len(make_sampler(cfg, prompts, {}).drawn(4, 1, {})) == 2


@pytest.mark.parametrize(
    "keys",
    [
        ["++data.curriculum.share=0.1", "++algorithm.prompts_per_step=4"],
        ["++data.curriculum.share=0.5", "++algorithm.prompts_per_step=1"],
        ["++data.curriculum.share=0.5", "++recipe=sft", "++recipe_args={data: x}"],
        ["++data.curriculum.share=0.5", "++recipe=cvedrl"],
    ],
)
def test_a_share_that_draws_nothing_is_refused(keys: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.curriculum\.share"):
        run_config(keys)
