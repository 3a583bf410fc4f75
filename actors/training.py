"""Offline training on the ZeRO-3 ranks: the warm start and the reward model.

Both are one loop over minibatches; they differ in the objective and in where the loss reads.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoTokenizer

from actors.fleet import Specs, start_fleet, train_fields
from actors.policy import Gang
from conf.schema import Config
from reward.train import shuffled_batches
from rl.console import Console
from rl.loss import NllObjective
from rl.packing import build_minibatch
from rl.tiny_model import make_policy
from rl.types import Sample
from rl.warm_start import answer_samples


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


async def warm_start(
    cfg: Config, answers: Sequence[tuple[str, str]], directory: Path, console: Console
) -> dict[str, float]:
    """Train a tiny policy from nothing on (question, answer) pairs, into `directory`.

    Steps, batch and learning rate are those of `loop.warm_*`; answers with the last figures.
    """
    loop = cfg.loop
    start = directory / "untrained"
    make_policy(start, ["\n".join(pair) for pair in answers], cfg.seed)
    samples = answer_samples(answers, AutoTokenizer.from_pretrained(start))
    epochs = 1 + loop.warm_steps * loop.warm_batch // len(samples)
    batches = shuffled_batches(samples, loop.warm_batch, epochs, cfg.seed, group_of=1)
    train = offline_train_fields(cfg, start, "lm", loop.warm_lr, loop.warm_steps)
    async with start_fleet(
        cfg, Specs(train=train, objective=NllObjective()), "warm-start"
    ) as fleet:
        plan = OfflinePlan(
            batches=itertools.islice(batches, loop.warm_steps),
            num_steps=loop.warm_steps,
            group_of=1,
            readout="completion",
            show="warm/loss",
        )
        figures = await train_offline(fleet.policy, plan, cfg, console)
        await fleet.policy.save_hf(directory / "hf")
    move_up(directory / "hf", directory)
    shutil.rmtree(start)
    return figures


def offline_train_fields(
    cfg: Config, model: Path, head: Literal["lm", "score"], lr: float, total_steps: int
) -> dict[str, Any]:
    """Fields of `TrainSpec` for offline training: warm-up over a twentieth, cosine to 0."""
    return train_fields(cfg, total_steps) | {
        "model_path": str(model),
        "head": head,
        "lr": lr,
        "lr_schedule": "cosine",
        "warmup_steps": max(1, total_steps // 20),
        "with_reference": False,
        "temperature": 1.0,
    }


def move_up(source: Path, target: Path) -> None:
    """Put what `source` holds into `target`."""
    for item in source.iterdir():
        item.rename(target / item.name)
    source.rmdir()


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
