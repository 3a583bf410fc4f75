"""Offline training on the ZeRO-3 ranks: the warm start and the reward model.

Both are one loop over minibatches; they differ in the objective and in where the loss reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from actors.policy import Gang
from conf.schema import Config
from rl.console import Console
from rl.packing import build_minibatch
from rl.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflinePlan:
    """What one offline training reads, and where its loss stands."""

    batches: Iterable[Sequence[Sample]]
    num_steps: int
    group_of: int  # consecutive samples that belong together: 2 for preference pairs
    readout: Literal["completion", "last"]
    show: str  # the metric that the console prints


async def train_offline(
    gang: Gang, plan: OfflinePlan, cfg: Config, console: Console
) -> dict[str, float]:
    """One optimizer step per batch; answers with the means of the last tenth of the steps."""
    total = plan.num_steps
    history: list[dict[str, float]] = []
    every = max(1, total // 8)
    with console.steps(total):
        for step, batch in enumerate(plan.batches, start=1):
            minibatch = build_minibatch(
                batch,
                gang.num_ranks,
                cfg.policy.microbatch_tokens,
                cfg.policy.row_tokens,
                group_of=plan.group_of,
                readout=plan.readout,
            )
            report = await gang.update(minibatch, None)
            history.append(dict(report.metrics))
            console.advance()
            if step % every == 0 or step == total:
                recent = np.mean([m[plan.show] for m in history[-every:]])
                console.say(f"step {step:>4}/{total}  {plan.show} {recent:.4f}  lr {report.lr:.2e}")
    tail = history[-max(1, total // 10) :]
    return {name: float(np.mean([m[name] for m in tail])) for name in tail[0]}


async def pair_accuracy(gang: Gang, samples: Sequence[Sample], cfg: Config) -> float:
    """Share of pairs whose chosen program scores higher; `samples` come in pairs, chosen first.

    A tie counts as wrong.
    """
    scores = np.zeros(len(samples))
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
        )
        outputs = await gang.logprobs(minibatch)
        for microbatches, values in zip(minibatch.microbatches_by_rank, outputs, strict=True):
            for microbatch, values_RL in zip(microbatches, values, strict=True):
                read = microbatch.loss_mask_RL > 0
                scores[start + microbatch.sample_index_RL[read]] = values_RL[read]
    return float(np.mean(scores[0::2] > scores[1::2]))
