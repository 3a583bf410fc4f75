"""Admission, batches, retries and health of the queue before the shards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from actors.serve.queue import (
    CALLS_PER_SHARD,
    Group,
    QueueConfig,
    QueueFullError,
    ScoreQueue,
    ShardState,
    UnavailableError,
)
from conf.errors import NonFiniteError
from tests.unit.actors.score_fakes import FakeShard, group

pytestmark = pytest.mark.unit

Body = Callable[[ScoreQueue], Coroutine[None, None, None]]


def run(shards: list[FakeShard], body: Body, capacity: int = 100, batch: int = 8) -> None:
    async def main() -> None:
        config = QueueConfig(capacity=capacity, batch=batch, health_check_every_s=0.01)
        async with asyncio.timeout(20), ScoreQueue(shards, config) as queue:
            await until(lambda: ShardState.UNPROVEN not in queue.states.values())
            await body(queue)

    asyncio.run(main())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


async def score(queue: ScoreQueue, *groups: Group) -> list[list[float | None]]:
    return [[s.value for s in judged.scores_G] for judged in await queue.judge(groups)]


def test_every_request_gets_its_own_scores_in_order():
    shards = [FakeShard("reward-0"), FakeShard("reward-1")]

    async def body(queue: ScoreQueue) -> None:
        wanted = [[[float(n)], [1.0, 2.0]] for n in range(50)]
        answers = await asyncio.gather(
            *(score(queue, group("x" * n), group("a", "bb")) for n in range(50))
        )
        assert list(answers) == wanted
        assert queue.num_admitted == queue.num_waiting == 0

    run(shards, body, capacity=150)
    assert all(shard.calls for shard in shards)
    assert max(len(texts) for shard in shards for texts in shard.calls) <= 8


def test_what_does_not_fit_is_refused_at_once_and_fits_again_later():
    shard = FakeShard()

    async def body(queue: ScoreQueue) -> None:
        shard.open.clear()
        admitted = [asyncio.create_task(score(queue, group("a", "b"))) for _ in range(5)]
        await until(lambda: queue.num_admitted == 10)
        with pytest.raises(QueueFullError, match="10 answers are admitted and 1 more") as caught:
            await score(queue, group("c"))
        assert caught.value.retry_after_s >= 1
        shard.open.set()
        assert await asyncio.gather(*admitted) == [[[1.0, 1.0]]] * 5
        assert await score(queue, group("c")) == [[1.0]]

    run([shard], body, capacity=10)
    assert ["c"] in shard.calls and sum(map(len, shard.calls)) == 11


def test_no_more_calls_are_on_a_shard_than_it_works_on():
    shard = FakeShard()

    async def body(queue: ScoreQueue) -> None:
        shard.open.clear()
        tasks = [asyncio.create_task(score(queue, group("a"))) for _ in range(20)]
        await until(lambda: queue.num_admitted == 20 and len(shard.calls) >= CALLS_PER_SHARD)
        await asyncio.sleep(0.05)
        assert len(shard.calls) == CALLS_PER_SHARD
        shard.open.set()
        await asyncio.gather(*tasks)

    run([shard], body, batch=2)


def test_what_was_on_a_shard_that_died_is_judged_on_another():
    first, second = FakeShard("reward-0"), FakeShard("reward-1")

    async def body(queue: ScoreQueue) -> None:
        first.open.clear()
        second.open.clear()
        tasks = [asyncio.create_task(score(queue, group("x" * n))) for n in range(20)]
        await until(lambda: bool(first.calls and second.calls))
        first.dead = True
        first.open.set()
        await until(lambda: queue.states["reward-0"] is ShardState.DOWN)
        second.open.set()
        assert await asyncio.gather(*tasks) == [[[float(n)]] for n in range(20)]
        assert queue.num_retried > 0
        first.dead = False
        await until(lambda: queue.states["reward-0"] is ShardState.UP)

    run([first, second], body)


def test_a_shard_that_hangs_is_given_up_when_its_probe_fails():
    first, second = FakeShard("reward-0"), FakeShard("reward-1")

    async def body(queue: ScoreQueue) -> None:
        first.open.clear()  # its calls never end
        tasks = [asyncio.create_task(score(queue, group("x" * n))) for n in range(20)]
        await until(lambda: bool(first.calls))
        first.dead = True  # its next probe fails
        assert await asyncio.gather(*tasks) == [[[float(n)]] for n in range(20)]

    run([first, second], body)


def test_without_a_shard_nothing_waits():
    shard = FakeShard()

    async def body(queue: ScoreQueue) -> None:
        shard.open.clear()
        tasks = [asyncio.create_task(score(queue, group("a"))) for _ in range(20)]
        await until(lambda: len(shard.calls) == CALLS_PER_SHARD)
        shard.dead = True
        shard.open.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, UnavailableError) for answer in answers)
        with pytest.raises(UnavailableError, match="no reward shard is up"):
            await score(queue, group("a"))
        shard.dead = False
        await until(lambda: queue.states["reward-0"] is ShardState.UP)
        assert await score(queue, group("a")) == [[1.0]]

    run([shard], body, batch=2)


def test_a_request_that_kills_shards_takes_no_neighbour_with_it():
    shards = [FakeShard("reward-0"), FakeShard("reward-1"), FakeShard("reward-2")]

    async def body(queue: ScoreQueue) -> None:
        texts = ["a", "bb", "killer", "cccc"]
        answers = await asyncio.gather(
            *(score(queue, group(text)) for text in texts), return_exceptions=True
        )
        assert [answers[0], answers[1], answers[3]] == [[[1.0]], [[2.0]], [[4.0]]]
        assert isinstance(answers[2], UnavailableError)
        assert sum(shard.dead for shard in shards) == 2

    run(shards, body)


def test_a_score_that_is_not_finite_fails_its_request_and_no_shard():
    shard = FakeShard()

    async def body(queue: ScoreQueue) -> None:
        answers = await asyncio.gather(
            *(score(queue, group(text)) for text in ("a", "nan", "refused")), return_exceptions=True
        )
        assert answers[0] == [[1.0]]
        assert isinstance(answers[1], NonFiniteError)
        assert isinstance(answers[2], UnavailableError) and "refuses" in str(answers[2])
        assert queue.states["reward-0"] is ShardState.UP

    run([shard], body)


def test_a_client_that_leaves_makes_room_and_no_work():
    shard = FakeShard()

    async def body(queue: ScoreQueue) -> None:
        shard.open.clear()
        tasks = [asyncio.create_task(score(queue, group(f"text {n}"))) for n in range(10)]
        await until(lambda: len(shard.calls) == CALLS_PER_SHARD)
        tasks[-1].cancel()
        await until(lambda: queue.num_admitted == 9)
        shard.open.set()
        await asyncio.gather(*tasks[:-1])

    run([shard], body, capacity=10, batch=1)
    assert ["text 9"] not in shard.calls and len(shard.calls) == 9


def test_after_the_end_of_admission_what_was_admitted_is_answered():
    shard = FakeShard()

    async def body(queue: ScoreQueue) -> None:
        shard.open.clear()
        task = asyncio.create_task(score(queue, group("a")))
        await until(lambda: queue.num_admitted == 1)
        queue.end_admission()
        with pytest.raises(UnavailableError, match="about to end"):
            await score(queue, group("b"))
        shard.open.set()
        assert await task == [[1.0]]

    run([shard], body)
