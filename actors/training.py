"""Offline training on the ZeRO-3 ranks: the warm start and the reward model.

Both are one loop over minibatches; they differ in the objective and in where the loss reads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from actors.policy import Gang
from conf.schema import Config
from rl.console import Console
from rl.packing import Readout, build_minibatch
from rl.types import FloatArray, Sample, UpdateReport


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflinePlan:
    """What one offline training reads, and where its loss stands."""

    batches: Iterable[Sequence[Sample]]  # from `first_step` on
    num_steps: int
    group_of: int  # consecutive samples that belong together: 2 for preference pairs
    readout: Readout
    show: str  # the metric that the console prints
    share_prefix: bool = False
    first_step: int = 1  # above 1 when training is resumed


AfterStep = Callable[[int, UpdateReport], Awaitable[None]]


async def _nothing(_: int, __: UpdateReport) -> None:
    """What follows a step where nobody asks for more."""


async def train_offline(
    gang: Gang, plan: OfflinePlan, cfg: Config, console: Console, after: AfterStep = _nothing
) -> dict[str, float]:
    """One optimizer step per batch; answers with the means of the last tenth of the steps.

    `after` sees each step before the next one begins.
    """
    total = plan.num_steps
    history: list[dict[str, float]] = []
    every = max(1, total // 8)
    with console.steps(total, done=plan.first_step - 1):
        for step, batch in enumerate(plan.batches, start=plan.first_step):
            minibatch = build_minibatch(
                batch,
                gang.num_ranks,
                cfg.policy.microbatch_tokens,
                cfg.policy.row_tokens,
                group_of=plan.group_of,
                readout=plan.readout,
                share_prefix=plan.share_prefix,
            )
            report = await gang.update(minibatch, None)
            history.append(dict(report.metrics))
            console.advance()
            if step % every == 0 or step == total:
                recent = np.mean([m[plan.show] for m in history[-every:]])
                console.say(f"step {step:>4}/{total}  {plan.show} {recent:.4f}  lr {report.lr:.2e}")
            await after(step, report)
    if not history:  # everything had been done before
        return {}
    tail = history[-max(1, total // 10) :]
    return {name: float(np.mean([m[name] for m in tail])) for name in tail[0]}


async def score_pairs(
    gang: Gang, samples: Sequence[Sample], cfg: Config, *, share_prefix: bool = False
) -> FloatArray:
    """Scores [2N] of N pairs; `samples` come in pairs."""
    scores = np.zeros(len(samples), dtype=np.float32)
    chunk = 512
    for start in range(0, len(samples), chunk):
        part = samples[start : start + chunk]
        minibatch = build_minibatch(
            part,
            gang.num_ranks,
            cfg.policy.microbatch_tokens,
            cfg.policy.row_tokens,
            group_of=2,
            readout="last",
            share_prefix=share_prefix,
        )
        outputs = await gang.logprobs(minibatch)
        for microbatches, values in zip(minibatch.microbatches_by_rank, outputs, strict=True):
            for microbatch, values_RL in zip(microbatches, values, strict=True):
                read = microbatch.loss_mask_RL > 0
                scores[start + microbatch.sample_index_RL[read]] = values_RL[read]
    return scores
