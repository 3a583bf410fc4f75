"""Offline training on the ZeRO-3 ranks: the warm start and the reward model.

Both are one loop over minibatches; they differ in the objective and in where the loss reads.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from actors.engines.specs import TrainSpec
from actors.groups.fleet import FleetSpec, start_fleet
from actors.groups.trainer import TrainGroup
from conf.schema import Config, PolicyConfig
from reward.train.pair_batches import shuffled_batches
from rl.base.console import Console
from rl.loss import NllObjective, Objective
from rl.packing import build_minibatch
from rl.parcels import Readout
from rl.problems.tiny_model import make_policy
from rl.problems.warm_start import answer_samples
from rl.text.tokenizer import load_tokenizer
from rl.types import FloatArray, Sample, UpdateReport

_WARMUP_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflinePlan:
    """What one offline training reads, and where its loss stands."""

    batches: Iterable[Sequence[Sample]]  # from `first_step` on
    num_steps: int
    group_of: int  # consecutive samples that belong together: 2 for preference pairs
    readout: Readout
    show: str  # the metric that the console prints
    objective: Objective
    first_step: int = 1  # above 1 when training is resumed


AfterStep = Callable[[int, UpdateReport], Awaitable[None]]


async def _nothing(_: int, __: UpdateReport) -> None:
    """What follows a step where nobody asks for more."""


async def train_offline(
    trainer: TrainGroup,
    plan: OfflinePlan,
    policy: PolicyConfig,
    console: Console,
    after: AfterStep = _nothing,
) -> dict[str, float]:
    """One optimizer step per batch; returns the means of the last tenth of the steps.

    `after` sees each step before the next one begins.
    """
    total = plan.num_steps
    history: list[dict[str, float]] = []
    every = max(1, total // 8)
    with console.steps(total, done=plan.first_step - 1):
        for step, batch in enumerate(plan.batches, start=plan.first_step):
            minibatch = build_minibatch(
                batch, trainer.packing, group_of=plan.group_of, readout=plan.readout
            )
            report = await trainer.update(minibatch, None, plan.objective)
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


async def warm_start(
    cfg: Config, answers: Sequence[tuple[str, str]], directory: Path, console: Console
) -> dict[str, float]:
    """Train a tiny policy from nothing on (question, answer) pairs, into `directory`.

    Steps, batch and learning rate are those of `loop.warm_*`; returns the last figures.
    """
    loop = cfg.loop
    start = directory / "untrained"
    make_policy(start, ["\n".join(pair) for pair in answers], cfg.seed)
    samples = answer_samples(answers, load_tokenizer(str(start), "loop"))
    epochs = 1 + loop.warm_steps * loop.warm_batch // len(samples)
    batches = shuffled_batches(samples, loop.warm_batch, epochs, cfg.seed, group_of=1)
    train = offline_spec(cfg, str(start), loop.warm_lr, loop.warm_steps)
    async with start_fleet(cfg, FleetSpec(train=train), "warm-start") as fleet:
        plan = OfflinePlan(
            batches=itertools.islice(batches, loop.warm_steps),
            num_steps=loop.warm_steps,
            group_of=1,
            readout="completion",
            show="warm/loss",
            objective=NllObjective(),
        )
        figures = await train_offline(fleet.policy, plan, cfg.policy, console)
        await fleet.policy.save_hf(directory / "hf")
    for item in (directory / "hf").iterdir():
        item.rename(directory / item.name)
    (directory / "hf").rmdir()
    shutil.rmtree(start)
    return figures


def offline_spec(cfg: Config, model: str, lr: float, total_steps: int) -> TrainSpec:
    """The engine that trains `model` offline: warm-up over a twentieth, cosine to 0."""
    policy = replace(
        cfg.policy,
        lr=lr,
        lr_schedule="cosine",
        warmup_steps=max(1, round(_WARMUP_SHARE * total_steps)),
    )
    return TrainSpec(
        model_path=model,
        dtype=cfg.model.dtype,
        device=cfg.placement.device,
        policy=policy,
        total_steps=total_steps,
        chat_template=cfg.model.chat_template,
        seed=cfg.seed,
    )


async def score_pairs(trainer: TrainGroup, samples: Sequence[Sample]) -> FloatArray:
    """Scores [2N] of N pairs; `samples` come in pairs."""
    scores = np.zeros(len(samples), dtype=np.float32)
    chunk = 512
    for start in range(0, len(samples), chunk):
        part = samples[start : start + chunk]
        minibatch = build_minibatch(part, trainer.packing, group_of=2, readout="last")
        outputs = await trainer.outputs(minibatch)
        for microbatches, values in zip(minibatch.microbatches_by_rank, outputs, strict=True):
            for microbatch, values_M in zip(microbatches, values, strict=True):
                scores[start + microbatch.sample_index_M] = values_M
    return scores
