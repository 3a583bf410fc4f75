"""Ablation of the recipe: the same RL under other choices, on one fleet of engines.

Every run starts from the same policy: its state is loaded again, published, and trained with
another seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, RayFleet, policy_spec, start_fleet
from actors.groups.verifiers import make_verifier
from actors.plan.problems import load_problems, make_sampler, source_of
from actors.stages.evaluation import evaluate, evaluation_sampling
from actors.stages.recipes import check_asks, make_recipe, num_updates
from actors.stages.rl_run import loop_config, training_sampling
from conf.errors import UserError
from conf.schema import Config
from conf.validate import ConfigError
from rl.base.console import Console
from rl.base.jsonlines import append_lines
from rl.loop import run_loop
from rl.recipes.recipe import History, Recipe
from rl.run.evaluate import shares_of
from rl.step import Batch
from rl.types import JudgedGroup, SamplingConfig, StepReport


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
    sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, arm.seeds[0])
    recipe = make_recipe(cfg, sampling)
    total_updates = num_updates(cfg.algorithm, recipe)  # of a seed: each begins at the first
    specs = FleetSpec(
        rollout_model=cfg.model.path,
        reward=True,
        train=policy_spec(cfg, total_updates, reference=recipe.needs_reference),
    )
    async with start_fleet(cfg, specs, "ablation") as fleet:
        start = output.parent / "initial"
        await fleet.policy.save_checkpoint(start)
        for seed in arm.seeds:
            await fleet.policy.load_checkpoint(start)
            line = await _run(cfg, seed, arm, fleet, console)
            append_lines(output, [line])


def check_arm(cfg: Config, arm: Arm) -> None:
    """Refuse a recipe or an exam that would fail after the engines have started.

    Raises:
        UserError: for one that cannot be made, and for problems that it would ask too long.
        ConfigError: for arguments that the recipe does not take.
    """
    for seed in arm.seeds:
        sampling = training_sampling(cfg.algorithm, cfg.model, cfg.rollout, seed)
        train, held_out = load_problems(cfg.data, seed)
        recipe, examiner = make_recipe(cfg, sampling), examiner_of(cfg, arm, sampling)
        check_asks(recipe, train, [] if examiner else held_out)
        if examiner is not None:
            check_asks(examiner, [], held_out)


def examiner_of(cfg: Config, arm: Arm, sampling: SamplingConfig) -> Recipe | None:
    """The recipe whose evaluation measures the arm; None where it is its own.

    Raises:
        UserError: for one that cannot be made, or that does not take its arguments.
    """
    if arm.exam is None:
        return None
    try:
        examined = replace(cfg, recipe=arm.exam, recipe_args=arm.exam_args)
        return make_recipe(examined, sampling, "exam")
    except ConfigError as error:
        raise UserError(
            f"exam: {arm.exam}: {'; '.join(map(str, error.faults))}; an exam has the recipe_args "
            "of the experiment whose recipe it is, and elsewhere the defaults (give such an "
            "experiment, or another exam)"
        ) from error


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
    newest: tuple[JudgedGroup, ...] = ()  # of the evaluations
    sampled_tokens, updates_before = 0, fleet.policy.num_updates_begun
    asked = evaluation_sampling(cfg.evaluation, cfg.model, seed)

    with make_verifier(cfg.sandbox, cfg.evaluation.test_timeout_s, workers=2) as verifier:

        async def measure(step: int) -> None:
            nonlocal newest
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
            newest = evaluation.groups_P
            marks[step] = examiner.mark(newest)

        async def after(report: StepReport, batch: Batch) -> None:
            nonlocal sampled_tokens
            completions = (c for judged in batch.groups_P for c in judged.group.completions_G)
            sampled_tokens += sum(len(completion.token_ids) for completion in completions)
            if "reward/mean" in report.metrics:  # the step has programs
                rewards[report.step] = report.metrics["reward/mean"]
            if report.step % cfg.evaluation.every == 0 or report.step == cfg.algorithm.num_steps:
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
        "shares": _shares(examiner, newest, [*passed]),
        "sampled_tokens": sampled_tokens,
        "optimizer_steps": fleet.policy.num_updates_begun - updates_before,
    }


def _shares(
    examiner: Recipe, groups: Sequence[JudgedGroup], problems_P: Sequence[str]
) -> dict[str, list[float]]:
    """What each problem does to each mark, in the order of the problems."""
    of_problem = {problem: list[JudgedGroup]() for problem in problems_P}
    for judged in groups:
        of_problem[judged.group.ask.problem.id].append(judged)

    def figures(chosen: Sequence[Sequence[JudgedGroup]]) -> Mapping[str, float]:
        return examiner.mark([judged for own in chosen for judged in own])

    found = shares_of(figures, [*of_problem.values()])
    return {name: [round(float(v), 6) for v in values_P] for name, values_P in found.items()}
