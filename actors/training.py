"""Offline training on the ZeRO-3 ranks: the warm start and the reward model.

Both are one loop over minibatches; they differ in the objective and in where the loss reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from actors.policy import Gang
from conf.schema import Config
from rl.console import Console
from rl.packing import build_minibatch
from rl.types import Sample


async def train_offline(
    gang: Gang,
    batches: Iterable[Sequence[Sample]],
    total: int,
    cfg: Config,
    console: Console,
    *,
    group_of: int,
    readout: Literal["completion", "last"],
    show: str,
) -> dict[str, float]:
    """One optimizer step per batch; answers with the means of the last tenth of the steps."""
    history: list[dict[str, float]] = []
    every = max(1, total // 8)
    with console.steps(total):
        for step, batch in enumerate(batches, start=1):
            minibatch = build_minibatch(
                batch,
                gang.num_ranks,
                cfg.policy.microbatch_tokens,
                cfg.policy.row_tokens,
                group_of=group_of,
                readout=readout,
            )
            report = await gang.update(minibatch, None)
            history.append(dict(report.metrics))
            console.advance()
            if step % every == 0 or step == total:
                recent = np.mean([m[show] for m in history[-every:]])
                console.say(f"step {step:>4}/{total}  {show} {recent:.4f}  lr {report.lr:.2e}")
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
