"""Why the recipe is what it is: the same RL under other choices, on one fleet of engines.

Every run starts from the same policy: its state is loaded again, published, and trained with
another advantage scaling or KL weight. The reward model is the other axis; each has its own fleet.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ray

from actors.evaluation import evaluate
from actors.fleet import (
    RayFleet,
    Specs,
    connect,
    policy_objective,
    start_fleet,
    train_fields,
)
from actors.rl_run import load_problems, step_config
from actors.verifiers import make_verifier
from conf.schema import Config
from rl.console import Console
from rl.loop import LoopConfig, run_loop
from rl.prompts import PromptSampler
from rl.step import Batch
from rl.types import SamplingConfig, StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One cell of the ablation."""

    reward_model: str
    advantage_scale: Literal["group_std", "batch_std"]
    kl_coef: float

    @property
    def label(self) -> str:
        """As the table shows it."""
        name = Path(self.reward_model).name
        return f"{name}, {self.advantage_scale}, KL {self.kl_coef:g}"


def run_ablation(
    cfg: Config, variants: Sequence[Variant], seeds: Sequence[int], output: Path
) -> None:
    """Run every variant with every seed; each finished run is one line of `output`."""
    connect(cfg, namespace="ablation")
    try:
        asyncio.run(_ablate(cfg, variants, seeds, output, Console()))
    finally:
        ray.shutdown()


async def _ablate(
    cfg: Config, variants: Sequence[Variant], seeds: Sequence[int], output: Path, console: Console
) -> None:
    for reward_model in dict.fromkeys(v.reward_model for v in variants):
        model_cfg = dataclasses.replace(
            cfg, reward=dataclasses.replace(cfg.reward, model=reward_model)
        )
        total = cfg.algorithm.num_steps * len(variants) * len(seeds)
        # The reference is needed by some variants, so the ranks always hold it.
        train = train_fields(model_cfg, total) | {"with_reference": True}
        specs = Specs(rollout_model=cfg.model.path, reward=True, train=train)
        async with start_fleet(model_cfg, specs, "ablation") as fleet:
            start = output.parent / "initial"
            await fleet.policy.save_checkpoint(start)
            for variant in variants:
                if variant.reward_model != reward_model:
                    continue
                for seed in seeds:
                    await fleet.policy.load_checkpoint(start)
                    line = await _run(model_cfg, variant, seed, fleet, console)
                    with output.open("a", encoding="ascii") as file:
                        file.write(json.dumps(line) + "\n")


async def _run(
    cfg: Config, variant: Variant, seed: int, fleet: RayFleet, console: Console
) -> dict[str, object]:
    algorithm = dataclasses.replace(
        cfg.algorithm, advantage_scale=variant.advantage_scale, kl_coef=variant.kl_coef
    )
    cfg = dataclasses.replace(cfg, algorithm=algorithm, seed=seed)
    fleet.policy.objective = policy_objective(cfg)
    train, held_out = load_problems(cfg)
    curve: dict[int, float] = {}
    rewards: dict[int, float] = {}
    sampling = SamplingConfig(
        group_size=cfg.evaluation.num_samples,
        max_tokens=cfg.model.max_completion_tokens,
        seed=seed,
        purpose="evaluation",
    )

    with make_verifier(cfg.sandbox, cfg.evaluation.test_timeout_s, workers=2) as verifier:

        async def measure(step: int) -> None:
            evaluation = await evaluate(fleet, held_out, sampling, verifier, step)
            curve[step] = evaluation.pass_at_1

        async def after(report: StepReport, batch: Batch) -> None:
            rewards[report.step] = report.metrics["reward/mean"]
            if report.step % cfg.evaluation.every == 0:
                await measure(report.step)

        await fleet.policy.publish(0)
        await measure(0)
        with console.steps(algorithm.num_steps):
            await run_loop(
                fleet,
                PromptSampler(train, seed),
                step_config(cfg),
                LoopConfig(num_steps=algorithm.num_steps, max_staleness=0),
                after,
            )
    shown = "  ".join(f"{step}: {value:.3f}" for step, value in curve.items())
    console.say(f"{variant.label}, seed {seed}:  {shown}")
    return {"variant": variant.label, "seed": seed, "pass@1": curve, "reward": rewards}
