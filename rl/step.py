"""One RL step on one page.

A step is two halves. `collect` samples the groups of a step and judges each one the moment its
completions are done, while others still generate. `learn` turns the judged groups into advantages,
updates the policy and publishes its weights. `rl.loop` runs them one after the other
(`max_staleness` 0) or overlapped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from conf.errors import NonFiniteError
from rl.advantage import AdvantageConfig, batch_advantages
from rl.interfaces import Fleet
from rl.lessons.truncated import TruncationConfig, settle
from rl.metrics import batch_metrics
from rl.packing import build_minibatch, split_minibatches
from rl.types import (
    FloatArray,
    JudgedGroup,
    Prompt,
    PromptGroup,
    Sample,
    SamplingConfig,
    StepReport,
    UpdateReport,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """What one step needs to know."""

    prompts_per_step: int
    sampling: SamplingConfig
    advantage: AdvantageConfig
    minibatches_per_step: int
    on_policy: bool  # the policy that updates is the one that sampled
    keep_zero_advantage: bool  # the loss has a term that needs none: KL penalty, entropy bonus
    truncation: TruncationConfig = TruncationConfig()  # noqa: RUF009 - it cannot change


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """The judged groups of one step, and when things happened (`time.time()`)."""

    groups_P: tuple[JudgedGroup, ...]
    started_s: float

    @property
    def timings(self) -> dict[str, float]:
        """How long sampling and scoring took, and how far scoring hid behind sampling."""
        last_completion_s = max(g.group.finished_s for g in self.groups_P)
        scored_s = [g.scored_s for g in self.groups_P]
        rollout_s = last_completion_s - self.started_s
        tokens = sum(len(c.token_ids) for g in self.groups_P for c in g.group.completions_G)
        return {
            "time/rollout_s": rollout_s,
            "time/first_score_s": min(scored_s) - self.started_s,
            "time/score_s": max(0.0, max(scored_s) - last_completion_s),
            "rollout/tokens_per_s": tokens / max(rollout_s, 1e-9),
        }


async def collect(step: int, fleet: Fleet, prompts_P: Sequence[Prompt], cfg: StepConfig) -> Batch:
    """Sample and judge the groups of one step."""
    started_s = time.time()
    groups_P = await sample_and_judge(step, fleet, prompts_P, cfg.sampling)
    settled_P = tuple(settle(judged, cfg.truncation) for judged in groups_P)
    return Batch(groups_P=settled_P, started_s=started_s)


async def sample_and_judge(
    step: int,
    fleet: Fleet,
    prompts_P: Sequence[Prompt],
    sampling: SamplingConfig,
    then: Callable[[JudgedGroup], Awaitable[JudgedGroup]] | None = None,
) -> tuple[JudgedGroup, ...]:
    """Judge each group as soon as it is complete; the answer is in the order of the prompts.

    `then` takes each judged group further, while others are still sampled.
    """

    async def judge(group: PromptGroup) -> JudgedGroup:
        judged = await fleet.reward.judge(group)
        return judged if then is None else await then(judged)

    async with asyncio.TaskGroup() as judging:
        tasks = [
            judging.create_task(judge(group))
            async for group in fleet.rollout.generate(prompts_P, sampling, step)
        ]
    order = {prompt.id: position for position, prompt in enumerate(prompts_P)}
    return tuple(sorted((t.result() for t in tasks), key=lambda g: order[g.group.prompt.id]))


async def learn(step: int, batch: Batch, fleet: Fleet, cfg: StepConfig) -> StepReport:
    """Update the policy on one batch; on return every rollout engine serves version `step`."""
    advantages_PG = batch_advantages(batch.groups_P, cfg.advantage)
    samples_N = build_samples(batch.groups_P, advantages_PG, cfg.keep_zero_advantage)
    start_s = time.perf_counter()
    update_metrics = await update(samples_N, fleet, cfg)
    updated_s = time.perf_counter()
    await fleet.policy.publish(step)
    published_s = time.perf_counter()
    staleness = [step - 1 - s.policy_version for s in samples_N]
    return StepReport(
        step=step,
        metrics={
            **batch_metrics(batch.groups_P),
            **batch.timings,
            **update_metrics,
            "policy/num_samples": float(len(samples_N)),
            "rollout/staleness": float(np.mean(staleness)) if staleness else 0.0,
            "time/update_s": updated_s - start_s,
            "time/publish_s": published_s - updated_s,
        },
    )


async def update(samples_N: Sequence[Sample], fleet: Fleet, cfg: StepConfig) -> dict[str, float]:
    """Take the optimizer steps of one RL step; none when no sample carries a gradient."""
    if not samples_N:
        return {}
    minibatches = [
        build_minibatch(part, fleet.policy.packing)
        for part in split_minibatches(samples_N, cfg.minibatches_per_step)
    ]
    old = [None]  # pi_old is the policy itself
    if not cfg.on_policy or len(minibatches) > 1:
        old = [await fleet.policy.outputs(minibatch) for minibatch in minibatches]
    reports = [
        await fleet.policy.update(minibatch, logprobs)
        for minibatch, logprobs in zip(minibatches, old, strict=True)
    ]
    shared_frac = float(np.mean([minibatch.shared_frac for minibatch in minibatches]))
    return {**mean_metrics(reports), "policy/shared_frac": shared_frac}


def build_samples(
    groups_P: Sequence[JudgedGroup], advantages_PG: Sequence[FloatArray], keep_zero: bool
) -> list[Sample]:
    """Turn completions into trainable sequences, without those that carry no gradient."""
    return [
        sample_of(judged.group, position, float(advantage))
        for judged, advantages_G in zip(groups_P, advantages_PG, strict=True)
        for position, advantage in enumerate(advantages_G)
        if (advantage != 0.0 or keep_zero)
        and judged.taught_G[position]
        and len(judged.group.completions_G[position].token_ids)
    ]


def sample_of(group: PromptGroup, position: int, advantage: float) -> Sample:
    """The trainable sequence of one completion; raises NonFiniteError for such an advantage."""
    completion = group.completions_G[position]
    if not np.isfinite(advantage):
        raise NonFiniteError(
            f"the advantage of prompt {group.prompt.id}, sample {completion.sample_idx} is "
            f"{advantage}; look at the scores of that group"
        )
    return Sample(
        prompt_id=completion.prompt_id,
        sample_idx=completion.sample_idx,
        token_ids=np.concatenate([group.prompt_token_ids, completion.token_ids]),
        num_prompt_tokens=len(group.prompt_token_ids),
        rollout_logprobs=completion.rollout_logprobs,
        advantage=advantage,
        policy_version=completion.policy_version,
        support_TK=completion.support_TK,
    )


def mean_metrics(reports: Sequence[UpdateReport]) -> dict[str, float]:
    """Mean over the optimizer steps; the learning rate is that of the last."""
    names = reports[0].metrics
    means = {name: float(np.mean([r.metrics[name] for r in reports])) for name in names}
    return {**means, "policy/lr": reports[-1].lr}
