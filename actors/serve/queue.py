"""The bounded queue in front of the reward shards: admission, batches, retries, health.

A request is admitted whole or refused at once; nothing waits without bound. Each shard takes its
next batch when it has room, so a slow shard gets less and an idle one starts at once. A shard is up
once it has scored a probe, which is a fresh program each time: no cache answers for the engine.
Whatever was on a shard that fails is judged again elsewhere, once and alone, so that a request
that kills shards takes no neighbour with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self

from conf.errors import EngineError, ProjectError
from reward.judges.judge import Judged
from rl.types import Prompt

logger = logging.getLogger(__name__)

Group = tuple[Prompt, Sequence[str]]  # a problem, and the texts of answers to it

CALLS_PER_SHARD = 2  # while one batch is scored, the next is extracted and tokenised
_LONGEST_RETRY_S = 60


class Shard(Protocol):
    """A reward shard as the queue sees it."""

    name: str

    async def judge_many(self, groups: Sequence[Group]) -> list[Judged | ProjectError]:
        """Judge groups; what one fails with is its own result."""
        ...

    async def check_health(self) -> None:
        """Score something that is in no cache. Raises ProjectError when that fails."""
        ...


class QueueFullError(ProjectError):
    """There is no room for a request now."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class UnavailableError(ProjectError):
    """No shard can answer, or the server is about to end."""


class ShardState(StrEnum):
    """What is known of a shard."""

    UNPROVEN = "unproven"  # it has not scored yet, or a call on it failed: a probe decides
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """How much is admitted, and how it is handed to the shards."""

    capacity: int  # answers admitted at once: waiting or on a shard
    batch: int  # answers of one call of a shard
    health_check_every_s: float = 5.0


@dataclass(slots=True, eq=False)
class _Job:
    prompt: Prompt
    texts_G: Sequence[str]
    future: asyncio.Future[Judged]
    retried: bool = False


@dataclass(slots=True, eq=False)
class _Watched:
    """A shard, and what is known of it."""

    shard: Shard
    state: ShardState = ShardState.UNPROVEN
    look: asyncio.Event = field(default_factory=asyncio.Event)  # probe now
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # set while DOWN


class ScoreQueue:
    """Answers wait here for a shard; use it inside a running event loop."""

    def __init__(self, shards: Sequence[Shard], cfg: QueueConfig) -> None:
        self._cfg = cfg
        self._watched = [_Watched(shard) for shard in shards]
        self._jobs: set[_Job] = set()  # all that are admitted
        self._waiting: deque[_Job] = deque()
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self.ending = False  # nothing more is admitted
        self._finished_s: deque[float] = deque(maxlen=512)  # when recent answers were done
        self.num_retried = 0  # answers that were on a shard that failed

    async def __aenter__(self) -> Self:
        """Probe the shards and hand out work from now on."""
        for watched in self._watched:
            self._tasks.append(asyncio.create_task(self._watch(watched)))
            for _ in range(CALLS_PER_SHARD):
                self._tasks.append(asyncio.create_task(self._work(watched)))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop at once; what is still admitted fails."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail(self._jobs, "the server has ended")

    def end_admission(self) -> None:
        """Refuse what comes from now on; what was admitted is still answered."""
        self.ending = True

    @property
    def states(self) -> dict[str, ShardState]:
        """What is known of each shard, by name."""
        return {watched.shard.name: watched.state for watched in self._watched}

    @property
    def num_admitted(self) -> int:
        """Answers that wait or are on a shard."""
        return sum(len(job.texts_G) for job in self._jobs)

    @property
    def num_waiting(self) -> int:
        """Answers that no shard has taken yet."""
        return sum(len(job.texts_G) for job in self._waiting)

    async def judge(self, groups: Sequence[Group]) -> list[Judged]:
        """Judge the groups of one request, in order.

        Raises:
            QueueFullError: when they do not fit into the queue now.
            UnavailableError: when no shard is there to judge them, or failed twice at it.
            ProjectError: what a shard raised, such as a score that is not finite.
        """
        num = sum(len(texts_G) for _, texts_G in groups)
        self._check_admission(num)
        loop = asyncio.get_running_loop()
        jobs = [_Job(prompt, texts_G, loop.create_future()) for prompt, texts_G in groups]
        self._jobs.update(jobs)
        try:
            async with self._changed:
                self._waiting.extend(jobs)
                self._changed.notify_all()
            return list(await asyncio.gather(*(job.future for job in jobs)))
        finally:
            # Of a request that failed or whose client left, the rest is not worth judging.
            for job in jobs:
                job.future.cancel()
            self._jobs.difference_update(jobs)

    def _check_admission(self, num: int) -> None:
        if self.ending:
            raise UnavailableError("the server is about to end and takes no more requests")
        if all(watched.state is ShardState.DOWN for watched in self._watched):
            raise UnavailableError("no reward shard is up; /health says when one is back")
        admitted = self.num_admitted
        if admitted + num > self._cfg.capacity:
            raise QueueFullError(
                f"queue: {admitted} answers are admitted and {num} more do not fit into "
                f"queue={self._cfg.capacity}; try again later",
                self._retry_after_s(admitted),
            )

    def _retry_after_s(self, admitted: int) -> int:
        """About the time in which what is admitted will be done."""
        if len(self._finished_s) < 2:
            return 1
        rate = len(self._finished_s) / max(time.monotonic() - self._finished_s[0], 1e-3)
        return min(max(math.ceil(admitted / rate), 1), _LONGEST_RETRY_S)

    # --- handing out -----------------------------------------------------------------------------

    async def _work(self, watched: _Watched) -> None:
        while True:
            batch = await self._take(watched)
            verdicts = await self._call(watched, [(job.prompt, job.texts_G) for job in batch])
            for job, verdict in zip(batch, verdicts, strict=True):
                self._settle(job, verdict)
            async with self._changed:
                self._changed.notify_all()

    async def _call(
        self, watched: _Watched, groups: Sequence[Group]
    ) -> Sequence[Judged | ProjectError]:
        """One call of a shard, given up when a probe says that the shard is gone."""
        call = asyncio.create_task(watched.shard.judge_many(groups))
        gone = asyncio.create_task(watched.gone.wait())
        try:
            await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                return call.result()
            failure: ProjectError = EngineError(f"{watched.shard.name} is gone")
        except ProjectError as error:
            failure = error
            self._doubt(watched, error)
        finally:
            call.cancel()
            gone.cancel()
        return [EngineError(f"{watched.shard.name}: {failure}")] * len(groups)

    async def _take(self, watched: _Watched) -> list[_Job]:
        """Wait until the shard is up and something waits; the next batch."""
        async with self._changed:
            while True:
                if watched.state is ShardState.UP and (batch := self._next_batch()):
                    return batch
                await self._changed.wait()

    def _next_batch(self) -> list[_Job]:
        """Jobs for one call, first come first served; one that was retried goes alone."""
        num_up = sum(watched.state is ShardState.UP for watched in self._watched)
        # Few that wait are split over the shards, not given to one.
        room = min(self._cfg.batch, math.ceil(self.num_waiting / num_up))
        batch: list[_Job] = []
        while self._waiting:
            job = self._waiting[0]
            alone = job.retried or (batch and batch[0].retried)
            if batch and (alone or len(job.texts_G) > room):
                break
            self._waiting.popleft()
            if not job.future.done():  # else its client has left
                batch.append(job)
                room -= len(job.texts_G)
        return batch

    def _settle(self, job: _Job, verdict: Judged | ProjectError) -> None:
        if job.future.done():
            return
        if not isinstance(verdict, ProjectError):
            self._finished_s.extend([time.monotonic()] * len(job.texts_G))
            job.future.set_result(verdict)
        elif not isinstance(verdict, EngineError):
            job.future.set_exception(verdict)
        elif job.retried:
            job.future.set_exception(UnavailableError(f"it failed twice: {verdict}"))
        elif all(watched.state is ShardState.DOWN for watched in self._watched):
            job.future.set_exception(UnavailableError(f"no reward shard is left: {verdict}"))
        else:
            job.retried = True
            self.num_retried += len(job.texts_G)
            self._waiting.appendleft(job)

    # --- health ----------------------------------------------------------------------------------

    def _doubt(self, watched: _Watched, error: ProjectError) -> None:
        """A call failed: no more work for the shard until a probe has been scored."""
        if watched.state is ShardState.UP:
            logger.warning("%s failed a call: %s", watched.shard.name, error)
            watched.state = ShardState.UNPROVEN
        watched.look.set()

    async def _watch(self, watched: _Watched) -> None:
        while True:
            watched.look.clear()
            try:
                await watched.shard.check_health()
            except ProjectError as error:
                self._set_down(watched, error)
            else:
                await self._set_up(watched)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(watched.look.wait(), self._cfg.health_check_every_s)

    def _set_down(self, watched: _Watched, error: ProjectError) -> None:
        if watched.state is not ShardState.DOWN:
            logger.warning("%s is down: %s", watched.shard.name, error)
        watched.state = ShardState.DOWN
        watched.gone.set()
        if all(other.state is ShardState.DOWN for other in self._watched):
            self._fail(self._waiting, f"no reward shard is left: {error}")

    async def _set_up(self, watched: _Watched) -> None:
        if watched.look.is_set() or watched.state is ShardState.UP:
            return  # a call failed while the probe ran: the next probe decides
        watched.state = ShardState.UP
        watched.gone.clear()
        async with self._changed:
            self._changed.notify_all()

    @staticmethod
    def _fail(jobs: Iterable[_Job], why: str) -> None:
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(UnavailableError(why))
