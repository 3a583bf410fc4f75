"""The loop around the step: who waits for whom, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from conf.errors import EngineError, NonFiniteError, VersionMismatchError
from rl.loop import Buffer, LoopConfig, run_loop
from rl.metrics import check_names
from rl.problems.prompts import PromptSampler
from rl.recipes.recipe import History
from rl.step import Batch
from rl.types import StepReport
from tests.unit.rl.fakes import FakeFleet, leaves, make_prompts, recipe

pytestmark = pytest.mark.unit

NUM_STEPS = 8
SLOW = 300  # turns of the event loop: a producer that may run ahead has done so by then


async def ignore(_: StepReport, __: Batch) -> None:
    """Do nothing after a step."""


def run(
    fleet: FakeFleet,
    cfg: LoopConfig,
    after: Callable[[StepReport, Batch], Awaitable[None]] = ignore,
) -> None:
    """Run a loop; one that hangs fails instead."""
    sampler = PromptSampler(make_prompts(5), run_seed=0)
    history = History({cfg.first_step - 1: {}}, cfg.max_staleness)
    looping = run_loop(fleet, sampler, recipe(), cfg, history=history, after=after)
    asyncio.run(asyncio.wait_for(looping, 5.0))


def loop(num_steps: int, max_staleness: int, first_step: int = 1) -> LoopConfig:
    """Two problems a step."""
    return LoopConfig(
        num_steps=num_steps,
        prompts_per_step=2,
        max_staleness=max_staleness,
        first_step=first_step,
    )


def lags(fleet: FakeFleet) -> list[int]:
    """For each rollout: versions by which the engines lagged behind the step that uses it."""
    found, version = [], 0
    for what, subject in fleet.events:
        if what == "published":
            version = int(str(subject))
        elif what == "rollout":
            found.append(int(str(subject)) - 1 - version)
    return found


def test_without_staleness_a_rollout_never_starts_before_the_version_before_it_is_published():
    fleet = FakeFleet()
    fleet.policy.turns = SLOW
    run(fleet, loop(num_steps=NUM_STEPS, max_staleness=0))
    order = [event for event in fleet.events if event[0] in {"rollout", "published"}]
    assert order == [
        (what, s) for s in range(1, NUM_STEPS + 1) for what in ("rollout", "published")
    ]


@pytest.mark.parametrize("turns", [0, 3, SLOW])
@pytest.mark.parametrize("max_staleness", [0, 1, 2, 3])
def test_rollouts_never_lag_more_versions_than_allowed(max_staleness, turns):
    fleet = FakeFleet()
    fleet.policy.turns = turns
    seen: list[float] = []

    async def after(report: StepReport, _: Batch) -> None:
        seen.append(report.metrics["rollout/staleness"])

    run(fleet, loop(num_steps=NUM_STEPS, max_staleness=max_staleness), after)
    assert max(lags(fleet)) <= max_staleness
    assert max(seen) <= max_staleness


@pytest.mark.parametrize("max_staleness", [1, 2, 3])
def test_a_slow_learner_lets_the_producer_run_ahead_as_far_as_allowed(max_staleness):
    fleet = FakeFleet()
    fleet.policy.turns = SLOW
    run(fleet, loop(num_steps=NUM_STEPS, max_staleness=max_staleness))
    assert lags(fleet)[max_staleness:] == [max_staleness] * (NUM_STEPS - max_staleness)


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_every_step_is_learned_once_in_order_and_reported_with_registered_metrics(max_staleness):
    reports: list[StepReport] = []

    async def after(report: StepReport, batch: Batch) -> None:
        check_names(report.metrics)
        assert len(batch.groups_P) == 2
        reports.append(report)

    fleet = FakeFleet()
    run(fleet, loop(num_steps=NUM_STEPS, max_staleness=max_staleness), after)
    assert [report.step for report in reports] == list(range(1, NUM_STEPS + 1))
    assert fleet.subjects("published") == list(range(1, NUM_STEPS + 1))
    for report in reports:
        assert report.metrics["time/step_s"] >= report.metrics["time/wait_s"] >= 0.0


def test_what_follows_a_step_ends_before_the_next_rollout_starts_on_policy():
    fleet = FakeFleet()

    async def after(report: StepReport, batch: Batch) -> None:
        del batch
        for _ in range(SLOW):
            await asyncio.sleep(0)
        fleet.events.append(("after", report.step))

    run(fleet, loop(num_steps=3, max_staleness=0), after)
    order = [event for event in fleet.events if event[0] in {"rollout", "after"}]
    assert order == [(what, step) for step in (1, 2, 3) for what in ("rollout", "after")]


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_failing_producer_ends_the_loop_with_its_own_error(max_staleness):
    fleet = FakeFleet()
    fleet.rollout.fails_at = (3, EngineError("rollout-0 died"))
    with pytest.raises(ExceptionGroup) as caught:
        run(fleet, loop(num_steps=NUM_STEPS, max_staleness=max_staleness))
    assert leaves(caught.value) == [fleet.rollout.fails_at[1]]


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_failing_judge_ends_the_loop_with_its_own_error(max_staleness):
    fleet = FakeFleet()
    fleet.reward.fails_at = ("p4", NonFiniteError("p4 has no score"))
    with pytest.raises(ExceptionGroup) as caught:
        run(fleet, loop(num_steps=NUM_STEPS, max_staleness=max_staleness))
    assert leaves(caught.value) == [fleet.reward.fails_at[1]]


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_failing_update_ends_a_loop_whose_producer_waits(max_staleness):
    fleet = FakeFleet()
    fleet.policy.turns = SLOW
    fleet.policy.fails = EngineError("policy-1 died")
    with pytest.raises(ExceptionGroup) as caught:
        run(fleet, loop(num_steps=NUM_STEPS, max_staleness=max_staleness))
    assert leaves(caught.value) == [fleet.policy.fails]


def test_a_failure_after_a_step_ends_the_loop_with_its_own_error():
    error = VersionMismatchError("rollout-1 serves 3")

    async def after(_: StepReport, __: Batch) -> None:
        raise error

    fleet = FakeFleet()
    with pytest.raises(ExceptionGroup) as caught:
        run(fleet, loop(num_steps=NUM_STEPS, max_staleness=1), after)
    assert leaves(caught.value) == [error]


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_what_follows_a_step_can_end_the_run_there(max_staleness):
    fleet = FakeFleet()
    fleet.policy.turns = SLOW

    async def after(report: StepReport, _: Batch) -> bool:
        return report.step == 3

    async def last_step() -> int:
        sampler = PromptSampler(make_prompts(5), run_seed=0)
        cfg = loop(num_steps=NUM_STEPS, max_staleness=max_staleness)
        history = History({0: {}}, max_staleness)
        looping = run_loop(fleet, sampler, recipe(), cfg, history=history, after=after)
        return await asyncio.wait_for(looping, 5.0)

    assert asyncio.run(last_step()) == 3
    assert fleet.subjects("published") == [1, 2, 3]
    assert max(fleet.subjects("rollout")) <= 3 + max_staleness  # type: ignore[type-var]  # integers


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_resumed_run_asks_for_the_prompts_that_an_uninterrupted_one_would(max_staleness):
    whole, resumed = FakeFleet(), FakeFleet()
    run(whole, loop(num_steps=4, max_staleness=max_staleness))
    resumed.rollout.version = 2
    run(resumed, loop(num_steps=4, max_staleness=max_staleness, first_step=3))
    assert resumed.subjects("published") == [3, 4]
    assert resumed.subjects("generated") == whole.subjects("generated")[4:]


def test_a_run_that_is_complete_does_nothing():
    fleet = FakeFleet()
    run(fleet, loop(num_steps=4, max_staleness=1, first_step=5))
    assert fleet.events == []


@pytest.mark.parametrize("max_staleness", [1, 2])
def test_a_run_that_goes_on_with_what_was_sampled_ahead_learns_from_what_the_whole_run_does(
    max_staleness: int,
) -> None:
    whole, resumed = FakeFleet(), FakeFleet()
    whole.policy.turns = resumed.policy.turns = SLOW
    learned: list[tuple[int, list[tuple[str, int]]]] = []
    ahead: dict[int, tuple[Batch, ...]] = {}

    async def go(fleet: FakeFleet, first_step: int, given: Sequence[Batch]) -> None:
        cfg = loop(num_steps=NUM_STEPS, max_staleness=max_staleness, first_step=first_step)
        buffer = Buffer(cfg, given)

        async def after(report: StepReport, batch: Batch) -> None:
            completions = (c for g in batch.groups_P for c in g.group.completions_G)
            learned.append((report.step, [(c.prompt_id, c.policy_version) for c in completions]))
            if first_step == 1:
                ahead[report.step] = await buffer.ahead_of(report.step)

        sampler = PromptSampler(make_prompts(5), run_seed=0)
        history = History({first_step - 1: {}}, max_staleness)
        looping = run_loop(
            fleet, sampler, recipe(), cfg, history=history, after=after, buffer=buffer
        )
        await asyncio.wait_for(looping, 5.0)

    asyncio.run(go(whole, 1, ()))
    expected = learned.copy()
    assert [len(found) for found in ahead.values()] == [
        min(max_staleness, NUM_STEPS - step) for step in range(1, NUM_STEPS + 1)
    ]
    learned.clear()
    resumed.rollout.version = 3
    asyncio.run(go(resumed, 4, ahead[3]))
    assert learned == expected[3:]
