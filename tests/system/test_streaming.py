"""The step on real engines: scoring hides behind sampling, actors have names, lag is bounded."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest
import ray
from ray.util.state import list_actors

from rl.problems import minipy
from rl.step import Batch
from rl.types import Ask, PromptGroup, StepReport
from tests.system.conftest import LiveFleet

pytestmark = pytest.mark.system

Record = Callable[[str], None]


def _run(
    live: LiveFleet, num_steps: int, max_staleness: int, prompts_per_step: int = 8
) -> list[StepReport]:
    reports: list[StepReport] = []

    async def after(report: StepReport, batch: Batch) -> None:
        reports.append(report)

    problems = minipy.make_prompts("train", 128, 0)
    live.wait(
        live.take_steps(
            problems,
            num_steps,
            after,
            first=live.fresh_step(),
            max_staleness=max_staleness,
            prompts_per_step=prompts_per_step,
        )
    )
    return reports


def test_the_first_score_is_finished_before_the_last_completion(
    live: LiveFleet, record: Record
) -> None:
    # More completions than the engine holds at once: the last ones begin when others are done.
    prompts = 4 * live.cfg.rollout.max_num_seqs // live.cfg.algorithm.group_size
    (report,) = _run(live, num_steps=1, max_staleness=0, prompts_per_step=prompts)
    first_score_s = report.metrics["time/first_score_s"]
    last_completion_s = report.metrics["time/rollout_s"]
    record(f"first score {first_score_s:.3f} s, last completion {last_completion_s:.3f} s")
    assert first_score_s < last_completion_s


def test_stale_rollouts_lag_by_one_version_and_are_corrected(live: LiveFleet) -> None:
    reports = _run(live, num_steps=4, max_staleness=1)
    lags = [report.metrics["rollout/staleness"] for report in reports]
    assert lags[0] == 0
    assert lags[1:] == [1.0, 1.0, 1.0]
    assert all("policy/tis_capped_frac" in report.metrics for report in reports)


def test_an_engine_drops_groups_that_nobody_waits_for(live: LiveFleet, record: Record) -> None:
    sampling = live.recipe.setup.sampling
    asks = [Ask.code(prompt, sampling) for prompt in minipy.make_prompts("train", 64, 0)]
    first = live.fresh_step()

    async def groups(num: int) -> float:
        """Take so many groups of all; the seconds until the engine has new weights afterwards."""
        called = live.fleet.rollout.generate(asks, first)
        found = cast("AsyncGenerator[PromptGroup]", called)
        taken = [await anext(found) for _ in range(num)]
        await found.aclose()
        assert len({group.prompt.id for group in taken}) == num
        start_s = time.perf_counter()
        await live.fleet.policy.publish(first)
        return time.perf_counter() - start_s

    start_s = time.perf_counter()
    live.wait(groups(64))
    all_s = time.perf_counter() - start_s
    dropped_s = live.wait(groups(1))
    live.wait(groups(64))
    record(f"64 groups: {all_s:.2f} s; publication after 63 were dropped: {dropped_s:.2f} s")
    assert dropped_s < all_s / 2


def test_actors_are_named(live: LiveFleet) -> None:
    address = ray.get_runtime_context().gcs_address  # another cluster may run on this machine
    alive: list[Any] = list_actors(address, filters=[("state", "=", "ALIVE")])
    names = {actor.name for actor in alive}
    assert {"rollout-0", "reward-0", "reward-1", "policy-0", "policy-1"} <= names
