"""Steps, evaluation, checkpoints: the loop around `rl.step`.

A producer collects batches, a learner consumes them. They share a bounded buffer, and the producer
of step s waits until the published policy version is at least s - 1 - max_staleness. With 0 the two
alternate, strictly on-policy; with k >= 1 generation overlaps training by at most k versions. It is
one code path for both. A checkpoint holds what was sampled ahead, so that a run that goes on learns
from the same.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rl.interfaces import Fleet
from rl.lessons.spread import Refill
from rl.problems.curriculum import draw_metrics
from rl.problems.prompts import PromptSampler
from rl.recipes.recipe import History, Recipe
from rl.step import Batch, collect, learn
from rl.types import StepReport

AfterStep = Callable[[StepReport, Batch], Awaitable[bool | None]]  # True: the run ends here


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long the loop runs and how far the producer may run ahead."""

    num_steps: int
    prompts_per_step: int
    max_staleness: int
    first_step: int = 1  # above 1 when a run is resumed
    min_spread: float | None = None  # see `rl.lessons.spread`
    num_refills: int = 0  # problems for each place of a step, after the first


class PublishedVersion:
    """The policy version that the rollout engines serve; coroutines can wait for it."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._changed = asyncio.Condition()

    async def set(self, version: int) -> None:
        """Announce a publication."""
        async with self._changed:
            self._version = version
            self._changed.notify_all()

    async def at_least(self, version: int) -> None:
        """Wait until `version` or a later one is served."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._version >= version)


class Buffer:
    """The batches between producer and learner, in the order of their steps.

    `given` are those of the first steps, of a run that goes on.
    """

    def __init__(self, cfg: LoopConfig, given: Sequence[Batch] = ()) -> None:
        self._cfg = cfg
        self._taken = deque(given)
        self._arriving: asyncio.Queue[Batch] = asyncio.Queue(maxsize=max(1, cfg.max_staleness))
        self.first_step = cfg.first_step + len(given)  # to be sampled

    async def put(self, batch: Batch) -> None:
        """Add the next batch as soon as there is room."""
        await self._arriving.put(batch)

    async def get(self) -> Batch:
        """Take the oldest batch, which may have to be waited for."""
        return self._taken.popleft() if self._taken else await self._arriving.get()

    async def ahead_of(self, step: int) -> tuple[Batch, ...]:
        """The batches that are sampled before `step` is published, waited for and kept."""
        num_ahead = min(self._cfg.max_staleness, self._cfg.num_steps - step)
        while len(self._taken) < num_ahead:
            self._taken.append(await self._arriving.get())
        return tuple(self._taken)


async def run_loop(  # noqa: PLR0913 - actors, problems, recipe and its state, bounds, watcher
    fleet: Fleet,
    sampler: PromptSampler,
    recipe: Recipe,
    cfg: LoopConfig,
    *,
    history: History,
    after: AfterStep,
    buffer: Buffer | None = None,
) -> int:
    """Run the RL steps `first_step..num_steps`; `after` sees each before the next is learned.

    `history` holds the recipe's state after a step when `after` sees it, and `buffer`, where the
    caller has one, what is sampled ahead. Returns the last step that was run: `num_steps`, unless
    `after` ended the run. Raises an ExceptionGroup whose leaves are the errors that ended the run.
    """
    published = PublishedVersion(cfg.first_step - 1)
    buffer = buffer or Buffer(cfg)
    steps = range(cfg.first_step, cfg.num_steps + 1)
    last = cfg.first_step - 1

    async def produce() -> None:
        for step in range(buffer.first_step, cfg.num_steps + 1):
            await published.at_least(step - 1 - cfg.max_staleness)
            state = history.seen_by(step)
            problems_P = sampler.take(cfg.prompts_per_step, step, state)
            spare = sampler.spare(len(problems_P) * cfg.num_refills, step, problems_P)
            refill = Refill.of(problems_P, spare, cfg.min_spread)
            await buffer.put(await collect(step, fleet, recipe, problems_P, state, refill=refill))

    async def consume() -> None:
        nonlocal last
        for step in steps:
            start_s = time.perf_counter()
            batch = await buffer.get()
            wait_s = time.perf_counter() - start_s
            report = await learn(step, batch, fleet, on_policy=cfg.max_staleness == 0)
            drawn = sampler.drawn(cfg.prompts_per_step, step, history.seen_by(step))
            remembered = recipe.remember(step, batch.groups_P, history.newest)
            kept = sampler.remember(batch.groups_P, history.newest)
            history.add(step, {**remembered, **kept})
            step_s = time.perf_counter() - start_s
            more = {"time/wait_s": wait_s, "time/step_s": step_s}
            more |= draw_metrics(batch.groups_P, drawn) if drawn else {}
            ended = await after(StepReport(step=step, metrics={**report.metrics, **more}), batch)
            last = step
            if ended:
                producer.cancel()  # what it has sampled ahead is not needed
                return
            await published.set(step)

    async with asyncio.TaskGroup() as both:
        producer = both.create_task(produce())
        both.create_task(consume())
    return last
