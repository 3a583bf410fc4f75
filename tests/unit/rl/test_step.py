"""One RL step against in-process fleets: streaming, what is trained on, and in which order."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from conf.errors import NonFiniteError, SandboxError
from rl.interfaces import Fleet
from rl.lessons.spread import Refill
from rl.metrics import check_names, mean_metrics
from rl.packing import Packing
from rl.recipes.recipe import Lesson, Recipe
from rl.samples import build_samples
from rl.step import Batch, collect, learn
from rl.types import UpdateReport
from tests.unit.rl.fakes import (
    PROMPT_TOKENS,
    FakeFleet,
    leaves,
    make_completion,
    make_group,
    make_judged,
    make_prompts,
    recipe,
)

pytestmark = pytest.mark.unit

GRPO = recipe()


def wait(coroutine: Coroutine[Any, Any, Any], deadline_s: float = 5.0) -> Any:
    """Run to the end; a wait that never ends is a failure, not a hang."""
    return asyncio.run(asyncio.wait_for(coroutine, deadline_s))


def batch_of(*rewards: tuple[float, ...], version: int = 0, taught_by: Recipe = GRPO) -> Batch:
    groups = [
        make_judged(make_group(prompt, len(values), version), values)
        for prompt, values in zip(make_prompts(len(rewards)), rewards, strict=True)
    ]
    lesson = taught_by.teach(1, groups, {})
    return Batch(groups_P=tuple(groups), lesson=lesson, started_s=time.time() - 1.0)


def test_a_whole_step_runs_in_process_in_less_than_a_second_and_reports_registered_metrics():
    fleet: Fleet = FakeFleet()

    async def step():
        batch = await collect(1, fleet, GRPO, make_prompts(2), {})
        return await learn(1, batch, fleet, on_policy=True)

    start_s = time.perf_counter()
    report = wait(step())
    assert time.perf_counter() - start_s < 1.0
    check_names(report.metrics)
    assert report.step == 1
    assert report.metrics["reward/mean"] == 1.0
    assert report.metrics["policy/loss"] == 1.0


def test_the_first_group_is_judged_before_the_last_one_is_generated():
    fleet = FakeFleet()
    prompts = make_prompts(3)

    async def run():
        first_judged = asyncio.Event()
        fleet.rollout.held = {"p2": first_judged}
        fleet.reward.on_judged = lambda _: first_judged.set()
        return await collect(1, fleet, GRPO, prompts, {})

    batch = wait(run())  # would wait for ever if judging began after generation
    assert fleet.events.index(("judged", "p0")) < fleet.events.index(("generated", "p2"))
    assert len(batch.groups_P) == 3


def test_groups_come_back_in_the_order_of_the_prompts_however_they_finish():
    fleet = FakeFleet()

    async def run():
        p2_judged = asyncio.Event()
        fleet.rollout.held = {"p0": p2_judged}
        fleet.reward.on_judged = lambda prompt_id: p2_judged.set() if prompt_id == "p2" else None
        return await collect(1, fleet, GRPO, make_prompts(3), {})

    batch = wait(run())
    assert fleet.subjects("generated") == ["p1", "p2", "p0"]
    assert [g.group.prompt.id for g in batch.groups_P] == ["p0", "p1", "p2"]


def test_a_failing_judge_ends_the_step_with_its_own_error_while_others_still_generate():
    fleet = FakeFleet()
    fleet.reward.fails_at = ("p0", NonFiniteError("p0 has no score"))

    async def run():
        fleet.rollout.held = {"p1": asyncio.Event()}  # never set
        await collect(1, fleet, GRPO, make_prompts(2), {})

    with pytest.raises(ExceptionGroup) as caught:
        wait(run())
    assert leaves(caught.value) == [fleet.reward.fails_at[1]]


def test_a_problem_whose_programs_cannot_be_run_is_dropped_whole_and_counted(caplog):
    fleet = FakeFleet()
    fleet.reward.fails_at = ("p1", SandboxError("no server"))

    async def step():
        batch = await collect(1, fleet, GRPO, make_prompts(3), {})
        return batch, await learn(1, batch, fleet, on_policy=True)

    batch, report = wait(step())
    assert [g.group.prompt.id for g in batch.groups_P] == ["p0", "p2"]
    assert {s.prompt_id for u in batch.lesson.updates for s in u.samples} <= {"p0", "p2"}
    assert report.metrics["rollout/num_dropped"] == 1.0
    assert "problem p1 is dropped: no server" in caplog.text


def test_a_step_of_which_no_program_could_be_run_fails():
    fleet = FakeFleet()
    fleet.reward.fails_at = ("p0", SandboxError("no server"))
    with pytest.raises(SandboxError, match="no server"):
        wait(collect(1, fleet, GRPO, make_prompts(1), {}))


def test_problems_that_teach_nothing_are_replaced_kept_on_record_and_never_learned():
    flat, telling = [1.0, 1.0, 1.0], [0.0, 1.0, 0.5]
    rewards = {f"p{i}": flat if i in (0, 2, 4) else telling for i in range(7)}

    def run(held: str | None) -> Batch:
        fleet = FakeFleet()
        fleet.reward.rewards = rewards
        problems = make_prompts(7)

        async def step():
            if held:
                p1_judged = asyncio.Event()
                fleet.rollout.held = {held: p1_judged}
                fleet.reward.on_judged = lambda name: p1_judged.set() if name == "p1" else None
            refill = Refill.of(problems[:2], problems[2:], min_spread=0.0)
            return await collect(1, fleet, GRPO, problems[:2], {}, refill=refill)

        return wait(step())

    batch = run(None)
    assert [g.group.prompt.id for g in batch.groups_P] == ["p0", "p2", "p4", "p6", "p1"]
    assert batch.num_flat == 3
    assert {s.prompt_id for u in batch.lesson.updates for s in u.samples} == {"p6", "p1"}
    assert len(batch.lesson.advantages_PG) == 5  # all are on record
    late = run("p0")  # the place of p0 is filled last, and everything is the same
    assert [g.group.prompt.id for g in late.groups_P] == ["p0", "p2", "p4", "p6", "p1"]


def test_a_failing_engine_ends_the_step_with_its_own_error():
    fleet = FakeFleet()
    fleet.rollout.fails_at = (1, RuntimeError("engine lost"))
    with pytest.raises(ExceptionGroup) as caught:
        wait(collect(1, fleet, GRPO, make_prompts(2), {}))
    assert leaves(caught.value) == [fleet.rollout.fails_at[1]]


@pytest.mark.parametrize(
    ("on_policy", "minibatches", "expected"),
    [
        (True, 1, ["update"]),  # the policy has not moved since the rollout
        (True, 2, ["logprobs", "logprobs", "update", "update"]),  # it moves after the first
        (False, 1, ["logprobs", "update"]),  # it had moved before
    ],
)
def test_old_logprobs_are_asked_for_only_when_needed_and_before_any_update(
    on_policy, minibatches, expected
):
    fleet = FakeFleet()
    batch = batch_of((0.0, 1.0), (0.0, 1.0), taught_by=recipe(minibatches_per_step=minibatches))
    wait(learn(1, batch, fleet, on_policy=on_policy))
    assert [what for what, _ in fleet.events] == [*expected, "published"]
    assert set(fleet.subjects("update")) == {"given" if "logprobs" in expected else "own"}


@pytest.mark.parametrize(("keep_zero", "expected"), [(False, ["p1", "p1"]), (True, ["p0"] * 2)])
def test_samples_without_gradient_are_dropped_unless_a_kl_term_needs_them(keep_zero, expected):
    batch = batch_of((1.0, 1.0), (0.0, 2.0))
    advantages = [np.zeros(2, np.float32), np.array([-1, 1], np.float32)]
    samples = build_samples(batch.groups_P, advantages, keep_zero=keep_zero)
    assert [s.prompt_id for s in samples[:2]] == expected
    assert len(samples) == (4 if keep_zero else 2)


@pytest.mark.parametrize("keep_zero", [False, True])
def test_an_empty_completion_is_never_trained_on(keep_zero):
    batch = batch_of((0.0, 2.0))
    group = batch.groups_P[0].group
    empty = make_completion("p0", 1, num_tokens=0)
    group = dataclasses.replace(group, completions_G=(group.completions_G[0], empty))
    judged = dataclasses.replace(batch.groups_P[0], group=group)
    samples = build_samples([judged], [np.array([-1, 1], np.float32)], keep_zero=keep_zero)
    assert [s.sample_idx for s in samples] == [0]


def test_a_sample_is_the_prompt_then_the_completion_with_its_own_advantage_and_logprobs():
    batch = batch_of((0.0, 2.0), version=7)
    samples = build_samples(batch.groups_P, [np.array([-1, 1], np.float32)], keep_zero=False)
    for sample, completion in zip(samples, batch.groups_P[0].group.completions_G, strict=True):
        split = sample.num_prompt_tokens
        assert sample.token_ids[:split].tolist() == PROMPT_TOKENS.tolist()
        assert sample.token_ids[split:].tolist() == completion.token_ids.tolist()
        assert sample.rollout_logprobs is completion.rollout_logprobs
        assert sample.policy_version == 7
    assert [s.advantage for s in samples] == [-1.0, 1.0]


def test_a_step_without_any_gradient_updates_nothing_and_still_publishes_its_version():
    fleet = FakeFleet()
    report = wait(learn(4, batch_of((1.0, 1.0), (2.0, 2.0)), fleet, on_policy=True))
    assert fleet.events == [("published", 4)]
    assert report.metrics["policy/num_samples"] == 0.0
    assert "policy/loss" not in report.metrics


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_advantage_names_prompt_and_sample(bad):
    batch = batch_of((0.0, 1.0), (0.0, 1.0))
    advantages = [np.array([-1, 1], np.float32), np.array([-1, bad], np.float32)]
    with pytest.raises(NonFiniteError, match=r"prompt p1, sample 1 .*(nan|inf)"):
        build_samples(batch.groups_P, advantages, keep_zero=False)


def test_every_sample_is_trained_on_once_and_prompts_stay_whole_in_a_minibatch():
    fleet = FakeFleet()
    batch = batch_of(*[(0.0, 1.0)] * 6, taught_by=recipe(minibatches_per_step=3))
    wait(learn(1, batch, fleet, on_policy=True))
    assert [minibatch.num_samples for minibatch in fleet.policy.updates] == [4, 4, 4]
    assert {len(m.microbatches_by_rank) for m in fleet.policy.updates} == {
        fleet.policy.packing.num_ranks
    }


def test_metrics_of_several_updates_are_means_and_the_learning_rate_is_the_last():
    reports = [
        UpdateReport(metrics={"policy/loss": 1.0, "policy/grad_norm": 4.0}, lr=0.1),
        UpdateReport(metrics={"policy/loss": 3.0, "policy/grad_norm": 0.0}, lr=0.3),
    ]
    expected = {"policy/loss": 2.0, "policy/grad_norm": 2.0, "policy/lr": 0.3}
    assert mean_metrics(reports) == expected


def test_staleness_counts_versions_between_the_sampling_policy_and_the_one_that_learns():
    report = wait(learn(5, batch_of((0.0, 1.0), version=2), FakeFleet(), on_policy=True))
    assert report.metrics["rollout/staleness"] == 2.0


def test_timings_say_how_much_of_the_scoring_was_not_hidden_behind_the_rollout():
    groups = batch_of((0.0, 1.0), (0.0, 1.0)).groups_P

    def timings(*finished_and_scored_s: tuple[float, float]) -> dict[str, float]:
        timed = [
            dataclasses.replace(
                judged,
                group=dataclasses.replace(judged.group, finished_s=finished_s),
                scored_s=scored_s,
            )
            for judged, (finished_s, scored_s) in zip(groups, finished_and_scored_s, strict=True)
        ]
        lesson = Lesson(updates=(), advantages_PG=())
        return Batch(groups_P=tuple(timed), lesson=lesson, started_s=100.0).metrics

    assert timings((101.0, 102.0), (108.0, 108.5)) == {
        "time/rollout_s": 8.0,
        "time/first_score_s": 2.0,
        "time/score_s": 0.5,
        "rollout/tokens_per_s": 2.0,  # 4 completions of 4 tokens
    }


@pytest.mark.parametrize("packs", [True, False])
def test_samples_share_rows_only_where_the_policy_says_that_they_may(packs: bool):
    fleet = FakeFleet()
    fleet.policy.packing = dataclasses.replace(fleet.policy.packing, packs=packs)
    wait(learn(1, batch_of((0.0, 1.0), (1.0, 0.0)), fleet, on_policy=True))
    (minibatch,) = fleet.policy.updates
    rows = [
        set(mb.sample_index_M[mb.place_M // mb.token_ids_RL.shape[1] == row].tolist())
        for rank in minibatch.microbatches_by_rank
        for mb in rank
        for row in range(len(mb.token_ids_RL))
    ]
    assert max(map(len, rows)) == (2 if packs else 1)
    assert set().union(*rows) == {0, 1, 2, 3}


@pytest.mark.parametrize(("share_prefix", "num_tokens"), [("on", 3 + 4 + 4), ("off", 2 * 7)])
def test_a_step_says_how_many_of_its_tokens_were_not_computed_again(share_prefix, num_tokens):
    fleet = FakeFleet()
    fleet.policy.packing = Packing(num_ranks=1, microbatch_tokens=64, share_prefix=share_prefix)
    # Both minibatches hold two completions of 4 tokens after the same prompt of 3.
    batch = batch_of((0.0, 1.0), (1.0, 0.0), taught_by=recipe(minibatches_per_step=2))
    report = wait(learn(1, batch, fleet, on_policy=True))
    assert report.metrics["policy/shared_frac"] == pytest.approx(1 - num_tokens / 14)
    assert [minibatch.num_tokens for minibatch in fleet.policy.updates] == [num_tokens] * 2
    check_names(report.metrics)
