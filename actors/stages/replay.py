"""Replay: the policy of a run trained again from the rollouts that the run has saved.

Only the policy ranks start, or one rank in this process, where a debugger can stop it. Nothing is
sampled, judged or evaluated; a step teaches what it has taught the run, unless a setting or the
scores are others.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from filecmp import cmpfiles

import numpy as np

from actors.cluster.session import session
from actors.cluster.signals import run_until_stopped
from actors.groups.fleet import (
    FleetSpec,
    actor_environment,
    packing_of,
    policy_spec,
    start_fleet,
)
from actors.groups.self_check import check_ranks
from actors.groups.train_actor import LocalPolicy
from actors.groups.trainer import TrainGroup
from actors.stages.recipes import make_recipe, num_updates
from actors.stages.rl_run import training_sampling
from conf.errors import DataError
from conf.schema import Config
from conf.validate import to_dict
from reward.judges.answers import GivenScore, GivenScores
from reward.model.written import check_written
from rl.base.console import Console
from rl.base.files import replace_json, replacing_directory
from rl.lessons.spread import Refill, without_loss
from rl.lessons.truncated import settle
from rl.metrics import JsonlSink
from rl.recipes.recipe import History, Recipe
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import read_groups
from rl.step import Batch, learn
from rl.types import JudgedGroup, JudgeKind, Score, StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What is trained again, and where it goes."""

    cfg: Config  # of the run, with what is changed
    run: RunDirectory
    target: RunDirectory
    num_steps: int
    scores: GivenScores | None = None  # None: as the run has judged
    in_process: bool = False


def replay(job: Replay) -> None:
    """Train again, and leave the policy and its metrics in the target.

    Raises:
        DataError: for rollouts without tokens, and for scores that lack a completion.
    """
    console = Console()
    recipe = _recipe(job.cfg)
    _groups(job, recipe, 1)  # before anything starts
    console.stage("replay", f"{job.num_steps} steps of {job.run.root}")
    replace_json(job.target.config, to_dict(job.cfg))
    if job.in_process:
        run_until_stopped(_train(job, recipe, console))
    else:
        with session(job.cfg.ray, f"replay-{job.target.root.name}") as run:
            run(_train(job, recipe, console))
    console.say(f"policy    {job.target.hf}")
    console.say(f"figures   {job.target.metrics}")
    if (equal := _is_equal(job)) is not None:
        console.say(f"weights   {'the same bytes as' if equal else 'other than'} {job.run.hf}")


def _recipe(cfg: Config) -> Recipe:
    return make_recipe(cfg, training_sampling(cfg.algorithm, cfg.model, cfg.rollout, cfg.seed))


async def _train(job: Replay, recipe: Recipe, console: Console) -> None:
    cfg, sink = job.cfg, JsonlSink(job.target.metrics)
    history = History({0: recipe.start()}, cfg.algorithm.max_staleness)
    async with _policy(job, recipe) as policy:
        for step in range(1, job.num_steps + 1):
            start_s = time.perf_counter()
            groups_P = _groups(job, recipe, step)
            lesson = recipe.teach(step, groups_P, history.seen_by(step))
            batch = Batch(groups_P=groups_P, lesson=lesson, started_s=None)
            on_policy = cfg.algorithm.max_staleness == 0
            report = await learn(step, batch, _Ranks(policy), on_policy=on_policy)
            history.add(step, recipe.remember(step, groups_P, history.newest))
            known = {n: value for n, value in report.metrics.items() if n != "reward/num_executed"}
            known["time/step_s"] = time.perf_counter() - start_s
            report = StepReport(step=step, metrics=known)
            sink.write(report)
            console.step(report, job.num_steps)
        with replacing_directory(job.target.hf) as staged:
            await policy.save_hf(staged)
            check_written(staged)
        if cfg.policy.lora.rank:
            with replacing_directory(job.target.adapter) as staged:
                await policy.save_adapter(staged)


@dataclass(frozen=True, slots=True)
class _Ranks:
    """All that learns."""

    policy: TrainGroup | LocalPolicy


@asynccontextmanager
async def _policy(job: Replay, recipe: Recipe) -> AsyncIterator[TrainGroup | LocalPolicy]:
    """The initial policy, checked as at the start of a run."""
    cfg = job.cfg
    total_updates = num_updates(cfg.algorithm, recipe)
    spec = policy_spec(cfg, total_updates, reference=recipe.needs_reference)
    spec = replace(spec, profile_dir=str(job.target.profile.resolve()))
    if not job.in_process:
        async with start_fleet(cfg, FleetSpec(train=spec), "replay") as fleet:
            yield fleet.policy
        return
    environment = actor_environment(cfg, cfg.policy.cpu_threads)
    policy = LocalPolicy(spec, packing_of(cfg.policy, num_ranks=1), environment)
    await check_ranks(cfg.self_check, policy, spec.model_path)
    yield policy


# --- what is learned from ------------------------------------------------------------------------


def _groups(job: Replay, recipe: Recipe, step: int) -> tuple[JudgedGroup, ...]:
    """The groups of a step, as the run graded them or with the scores that are given."""
    path = job.run.rollout_file(RolloutFolder.TRAINING, step)
    groups = read_groups(path, job.cfg.reward.weights)
    if job.scores is None:
        return tuple(groups)
    refill = Refill(min_spread=job.cfg.algorithm.min_spread)
    return tuple(_graded(_rescored(g, step, job.scores), recipe, refill) for g in groups)


def _rescored(judged: JudgedGroup, step: int, scores: GivenScores) -> JudgedGroup:
    given = [_found(scores, step, c.prompt_id, c.sample_idx) for c in judged.group.completions_G]
    return replace(
        judged,
        scores_G=tuple(Score(value=one.score) for one in given),
        rewards_G=np.array([one.reward for one in given], np.float32),
        judge=JudgeKind.RM,
        masked_G=None,
        parts={},
    )


def _found(scores: GivenScores, step: int, prompt_id: str, index: int) -> GivenScore:
    if (found := scores.get((step, prompt_id, index))) is None:
        raise DataError(
            f"scores: has none of step {step}, {prompt_id}, sample {index}; give what "
            "launch/score.py has written of this run (input=RUN)"
        )
    return found


def _graded(judged: JudgedGroup, recipe: Recipe, refill: Refill) -> JudgedGroup:
    (graded,) = recipe.grade([judged])
    graded = settle(graded, recipe.setup.truncation)
    return without_loss(graded) if refill.is_flat([graded]) else graded


def _is_equal(job: Replay) -> bool | None:
    """Whether the policy has the bytes of the run's; None where not all of it was trained again."""
    if job.num_steps != job.cfg.algorithm.num_steps or not job.run.hf.is_dir():
        return None
    names = [file.name for file in job.target.hf.glob("*.safetensors")]
    _, other, missing = cmpfiles(job.run.hf, job.target.hf, names, shallow=False)
    return bool(names) and not other and not missing
