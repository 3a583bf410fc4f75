"""Ablation of the recipe: the same RL under other choices, on one fleet of engines.

Every run starts from the same policy: its state is loaded again, published, and trained with
another seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, RayFleet, policy_spec, start_fleet
from actors.groups.verifiers import make_verifier
from actors.plan.problems import load_problems, make_sampler, source_of
from actors.stages.evaluation import evaluate
from actors.stages.recipes import make_recipe
from actors.stages.rl_run import loop_config, training_sampling
from conf.schema import Config
from rl.base.console import Console
from rl.base.jsonlines import append_lines
from rl.loop import run_loop
from rl.recipes.recipe import History, Recipe
from rl.step import Batch
from rl.types import SamplingConfig, StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One set of choices, run with several seeds."""

    label: str
    seeds: tuple[int, ...]
    exam: str | None  # recipe whose evaluation measures it; None: its own
    exam_args: Mapping[str, Any] | None = None  # of that recipe; None: its defaults


def run_arm(cfg: Config, arm: Arm, output: Path) -> None:
    """Run one arm with every seed; each finished run is one line of `output`."""
    with session(cfg.ray, "ablation") as run:
        run(_run_arm(cfg, arm, output, Console()))


async def _run_arm(cfg: Config, arm: Arm, output: Path, console: Console) -> None:
    total_steps = cfg.algorithm.num_steps * len(arm.seeds)
    sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, arm.seeds[0])
    reference = make_recipe(cfg, sampling).needs_reference
    specs = FleetSpec(
        rollout_model=cfg.model.path,
        reward=True,
        train=policy_spec(cfg, total_steps, reference=reference),
    )
    async with start_fleet(cfg, specs, "ablation") as fleet:
        start = output.parent / "initial"
        await fleet.policy.save_checkpoint(start)
        for seed in arm.seeds:
            await fleet.policy.load_checkpoint(start)
            line = await _run(cfg, seed, arm, fleet, console)
            append_lines(output, [line])


def examiner_of(cfg: Config, arm: Arm, sampling: SamplingConfig) -> Recipe | None:
    """The recipe whose evaluation measures the arm; None where it is its own."""
    if arm.exam is None:
        return None
    return make_recipe(replace(cfg, recipe=arm.exam, recipe_args=arm.exam_args), sampling)


async def _run(
    cfg: Config, seed: int, arm: Arm, fleet: RayFleet, console: Console
) -> dict[str, object]:
    train, held_out = load_problems(cfg.data, seed)
    curve: dict[int, float] = {}
    passed: dict[str, float] = {}  # share of right programs by problem, newest evaluation
    rewards: dict[int, float] = {}
    sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, seed)
    recipe = make_recipe(cfg, sampling)
    examiner = examiner_of(cfg, arm, sampling) or recipe
    marks: dict[int, Mapping[str, float]] = {}
    asked = SamplingConfig(
        group_size=cfg.evaluation.num_samples,
        max_tokens=cfg.model.max_completion_tokens,
        seed=seed,
        purpose="evaluation",
    )

    with make_verifier(cfg.sandbox, cfg.evaluation.test_timeout_s, workers=2) as verifier:

        async def measure(step: int) -> None:
            evaluation = await evaluate(
                fleet,
                examiner.exam(held_out, asked),
                verifier,
                step,
                follow_up=lambda bundle: examiner.examine(bundle, asked),
            )
            curve[step] = evaluation.pass_at_1
            passed.update(
                (group.group.prompt.id, float(np.mean([score.passed for score in group.scores_G])))
                for group in evaluation.programs_P
            )
            marks[step] = examiner.mark(evaluation.groups_P)

        async def after(report: StepReport, batch: Batch) -> None:
            if batch.groups_P:
                rewards[report.step] = report.metrics["reward/mean"]
            if report.step % cfg.evaluation.every == 0:
                await measure(report.step)

        await fleet.policy.publish(0)
        await measure(0)
        with console.steps(cfg.algorithm.num_steps):
            await run_loop(
                fleet,
                make_sampler(replace(cfg, seed=seed), train, source_of(cfg.data)),
                recipe,
                loop_config(cfg.algorithm),
                history=History({0: recipe.start()}, cfg.algorithm.max_staleness),
                after=after,
            )
    shown = "  ".join(f"{step}: {value:.3f}" for step, value in curve.items())
    console.say(f"{arm.label}, seed {seed}:  {shown}")
    for step, found in marks.items():
        if found:
            named = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
            console.say(f"  step {step}: {named}")
    return {
        "label": arm.label,
        "seed": seed,
        "pass@1": curve,
        "passed": passed,
        "reward": rewards,
        "marks": marks,
    }
