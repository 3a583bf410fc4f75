"""One RL step on one page.

A step is two halves. `collect` samples what the recipe asks and judges the groups of a problem the
moment the last one is done, while others still generate; the recipe says what is learned from them.
`learn` updates the policy and publishes its weights. `rl.loop` runs them one after the other
(`max_staleness` 0) or overlapped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from conf.errors import SandboxError
from rl.interfaces import Fleet, Learner, PolicyFleet
from rl.lessons.spread import NO_REFILL, Refill, problem_of, without_loss
from rl.lessons.truncated import settle
from rl.metrics import batch_metrics, mean_metrics
from rl.packing import build_minibatch, split_minibatches
from rl.recipes.recipe import Lesson, Recipe, State, Update, sharing_old
from rl.types import Ask, JudgedGroup, Prompt, PromptGroup, StepReport, UpdateReport

logger = logging.getLogger(__name__)

GiveUp = Callable[[str, SandboxError], None]  # with the id of the problem
FollowUp = Callable[[Sequence[JudgedGroup]], Sequence[Ask]]
Then = Callable[[Sequence[JudgedGroup]], Awaitable[Sequence[JudgedGroup]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """The judged groups of one step, what they teach, and when it began (`time.time()`).

    None is a batch that was read from a file: when its groups were sampled is not known.
    """

    groups_P: tuple[JudgedGroup, ...]
    lesson: Lesson
    started_s: float | None
    num_flat: int = 0  # problems that teach nothing (`rl.lessons.spread`)
    num_dropped: int = 0  # problems whose programs could not be run

    @property
    def metrics(self) -> dict[str, float]:
        """How long sampling and scoring took, how far the one hid the other, what is left out.

        Nothing where nothing was asked.
        """
        if not self.groups_P:
            return {}
        left_out = {"num_flat": self.num_flat, "num_dropped": self.num_dropped}
        found = {f"rollout/{name}": float(num) for name, num in left_out.items() if num}
        return found if self.started_s is None else {**self._times(self.started_s), **found}

    def _times(self, started_s: float) -> dict[str, float]:
        last_completion_s = max(g.group.finished_s for g in self.groups_P)
        scored_s = [g.scored_s for g in self.groups_P]
        rollout_s = last_completion_s - started_s
        tokens = sum(len(c.token_ids) for g in self.groups_P for c in g.group.completions_G)
        return {
            "time/rollout_s": rollout_s,
            "time/first_score_s": min(scored_s) - started_s,
            "time/score_s": max(0.0, max(scored_s) - last_completion_s),
            "rollout/tokens_per_s": tokens / max(rollout_s, 1e-9),
        }


async def collect(  # noqa: PLR0913 - who works, what is asked, and what takes its place
    step: int,
    fleet: Fleet,
    recipe: Recipe,
    problems_P: Sequence[Prompt],
    state: State,
    *,
    refill: Refill = NO_REFILL,
) -> Batch:
    """Sample, judge and grade what the recipe asks about the problems of a step.

    A problem whose programs could not be run is dropped whole. Raises SandboxError when nothing is
    left of a task that was asked for.
    """
    started_s = time.time()
    flat, dropped = set[str](), dict[str, SandboxError]()

    async def grade(bundle: Sequence[JudgedGroup]) -> Sequence[JudgedGroup]:
        graded = [settle(group, recipe.setup.truncation) for group in recipe.grade(bundle)]
        if not refill.is_flat(graded):
            return graded
        flat.add(problem_of(graded))
        return [without_loss(group) for group in graded]

    def go_on(bundle: Sequence[JudgedGroup]) -> Sequence[Ask]:
        problem = problem_of(bundle)
        if problem not in flat:
            return recipe.follow_up(step, bundle)
        instead = refill.instead.get(problem)
        return recipe.ask_instead(step, instead, state) if instead else ()

    asks = recipe.ask(step, problems_P, state)
    groups = await sample_and_judge(step, fleet, asks, grade, go_on, give_up=dropped.__setitem__)
    places = refill.places([ask.problem.id for ask in asks])
    groups_P = tuple(sorted(groups, key=lambda judged: places[judged.group.ask.problem.id]))
    if dropped and {ask.task for ask in asks} - {group.task for group in groups_P}:
        raise next(iter(dropped.values()))
    return Batch(
        groups_P=groups_P,
        lesson=recipe.teach(step, groups_P, state),
        started_s=started_s,
        num_flat=len(flat),
        num_dropped=len(dropped),
    )


async def sample_and_judge(  # noqa: PLR0913 - who works, what is asked, and what comes of it
    step: int,
    fleet: Fleet,
    asks: Sequence[Ask],
    then: Then,
    follow_up: FollowUp | None = None,
    *,
    give_up: GiveUp | None = None,
) -> tuple[JudgedGroup, ...]:
    """Judge the groups of a problem together as soon as its last is complete.

    `then` takes them further, while others are still sampled; `follow_up` says what is asked next.
    `give_up` is told of a problem whose programs could not be run, and no group of it is returned;
    without it the error is raised. The answer is in the order of the problems, then of asking.
    """
    done = dict[str, list[JudgedGroup]]()
    asked = Counter[str]()

    async def sample(asks: Sequence[Ask]) -> None:
        asked.update(ask.prompt.id for ask in asks)
        repeated = [prompt_id for prompt_id, times in asked.items() if times > 1]
        if repeated:
            raise ValueError(f"step {step} asks these prompt ids twice: {repeated}")
        waiting = {ask.problem.id: dict[str, PromptGroup | None]() for ask in asks}
        for ask in asks:
            done.setdefault(ask.problem.id, [])
            waiting[ask.problem.id][ask.prompt.id] = None
        async with asyncio.TaskGroup() as judging:
            async for group in fleet.rollout.generate(asks, step):
                problem = group.ask.problem.id
                waiting[problem][group.prompt.id] = group
                groups = [group for group in waiting[problem].values() if group is not None]
                if len(groups) == len(waiting[problem]):
                    judging.create_task(judge(problem, groups))

    async def judge(problem: str, groups: Sequence[PromptGroup]) -> None:
        try:
            bundle = await then(await fleet.reward.judge(groups, done[problem]))
        except SandboxError as error:
            if give_up is None:
                raise
            logger.warning("step %d: problem %s is dropped: %s", step, problem, error)
            give_up(problem, error)
            done[problem].clear()
            return
        done[problem] += bundle
        if follow_up is not None and (asks := follow_up(bundle)):
            await sample(asks)

    if asks:
        await sample(asks)
    return tuple(group for bundle in done.values() for group in bundle)


async def learn(step: int, batch: Batch, fleet: Learner, *, on_policy: bool) -> StepReport:
    """Update the policy on one batch; on return every rollout engine serves version `step`."""
    lesson = batch.lesson
    start_s = time.perf_counter()
    update_metrics = await update(lesson.updates, fleet.policy, on_policy=on_policy)
    updated_s = time.perf_counter()
    await fleet.policy.publish(step)
    published_s = time.perf_counter()
    sampled = [s for u in lesson.updates for s in u.samples if batch.groups_P]
    staleness = [step - 1 - s.policy_version for s in sampled]
    return StepReport(
        step=step,
        metrics={
            **batch_metrics(batch.groups_P),
            "reward/num_executed": float(sum(g.num_executed for g in batch.groups_P)),
            **batch.metrics,
            **update_metrics,
            **lesson.metrics,
            "policy/num_samples": float(lesson.num_samples),
            "rollout/staleness": float(np.mean(staleness)) if staleness else 0.0,
            "time/update_s": updated_s - start_s,
            "time/publish_s": published_s - updated_s,
        },
    )


async def update(
    updates: Sequence[Update], policy: PolicyFleet, *, on_policy: bool
) -> dict[str, float]:
    """Take the optimizer steps of one RL step; none when no sample carries a gradient.

    `on_policy`: the policy that learns is the one that sampled, until it has learned something.
    """
    reports: list[UpdateReport] = []
    shared: list[float] = []
    for part in sharing_old(updates):
        steps = [
            (build_minibatch(samples, policy.packing, group_of=one.group_of), one)
            for one in part
            for samples in split_minibatches(one.samples, one.minibatches)
        ]
        is_current = on_policy or part[0].begins_anew
        knows_old = is_current and len(steps) == 1  # pi_old is the policy itself
        old = [
            await policy.outputs(minibatch) if one.needs_old and not knows_old else None
            for minibatch, one in steps
        ]
        reports += [
            await policy.update(minibatch, logprobs, one.objective)
            for (minibatch, one), logprobs in zip(steps, old, strict=True)
        ]
        shared += [minibatch.shared_frac for minibatch, _ in steps]
    if not reports:
        return {}
    return {**mean_metrics(reports), "policy/shared_frac": float(np.mean(shared))}
