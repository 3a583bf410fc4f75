"""Every wait ends: with the result, with the actor's own error, or at its deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from actors.cluster.deadlines import (
    SharedDeadline,
    all_of,
    get,
    stream,
    wait_for,
    wait_for_all,
)
from conf.errors import DeadlineError, EngineError, LostActorError, NonFiniteError

pytestmark = pytest.mark.unit

SHORT_S = 0.02
LONG_S = 5.0
TRACEBACK = """Traceback (most recent call last):
  File "reward.py", line 3, in __init__
    raise ValueError("no head")
ValueError: no head
"""
# The reason stands between a headline and a link; the value is a page long.
PYDANTIC = """Traceback (most recent call last):
  File "rollout.py", line 3, in __init__
    raise error
pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, max_model_len (512) is greater than n_positions=256 [type=value_error, \
input_value=ArgsKwargs((), {'model':...}), input_type=ArgsKwargs]
    For further information visit https://errors.pydantic.dev/2.13/v/value_error
"""


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The calls that were cancelled."""
    found: list[object] = []
    monkeypatch.setattr(ray, "cancel", found.append)
    return found


def task_error(cause: Exception) -> RayError:
    """An actor's exception, as Ray hands it to the caller."""
    return RayTaskError("judge", "traceback", cause, ip="127.0.0.1").as_instanceof_cause()


async def result(value: str) -> str:
    return value


async def failure(error: Exception) -> str:
    raise error


async def never() -> str:
    await asyncio.Event().wait()
    raise AssertionError


def wait(ref: Awaitable[str], deadline_s: float = LONG_S) -> str:
    return asyncio.run(wait_for(ref, deadline_s, "the score of reward-0"))


def test_an_actor_that_died_is_lost_and_one_whose_constructor_raises_is_not():
    said = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tpid: 3\n"
        "Its process has died. Some common causes include: (1) memory"
    )
    with pytest.raises(LostActorError) as caught:
        wait(failure(RayActorError(error_msg=said)))
    assert str(caught.value) == (
        "the score of reward-0 failed: RayActorError: The actor died unexpectedly before finishing "
        "this task.; Its process has died."
    )
    for error in (
        RayActorError(error_msg="no head", actor_init_failed=True),
        task_error(OSError()),
    ):
        with pytest.raises(EngineError) as caught:
            wait(failure(error))
        assert not isinstance(caught.value, LostActorError)


def test_an_actor_that_ray_ended_for_its_memory_is_lost_and_what_was_used_is_said() -> None:
    said = (
        "2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
        "10.0.0.2, ID: ab) was 22.92GB used / 23.54GB limit (0.973479); OOM kill reason: ..."
    )
    with pytest.raises(LostActorError) as caught:
        wait(failure(OutOfMemoryError(said)))
    assert str(caught.value) == (
        "the score of reward-0 failed: Ray ended it because its node ran out of memory (22.92GB "
        "used / 23.54GB limit); end what else runs there, or give the node fewer actors or smaller "
        "KV caches"
    )


def test_a_result_is_handed_on():
    assert wait(result("done")) == "done"


def test_a_wait_ends_at_its_deadline_and_says_what_it_waited_for():
    start_s = time.perf_counter()
    with pytest.raises(DeadlineError, match=r"the score of reward-0 .* within 0\.02 s"):
        wait(never(), SHORT_S)
    assert time.perf_counter() - start_s < 1.0


def test_answers_to_others_start_a_shared_deadline_anew():
    async def answers() -> list[str]:
        shared = SharedDeadline(0.4)
        slow = [asyncio.sleep(0.2 * number, str(number)) for number in range(1, 6)]
        return await all_of(shared.wait_for(answer, "scores") for answer in slow)

    assert asyncio.run(answers()) == ["1", "2", "3", "4", "5"]  # the last after 1.0 s


def test_a_shared_deadline_ends_when_nobody_is_answered():
    async def answers() -> None:
        shared = SharedDeadline(SHORT_S)
        assert await shared.wait_for(result("done"), "scores") == "done"
        with pytest.raises(DeadlineError, match="scores"):
            await all_of(shared.wait_for(never(), "scores") for _ in range(2))
        assert shared.num_waiting == 0

    asyncio.run(answers())


@pytest.mark.parametrize("error", [NonFiniteError("NaN for p3"), DeadlineError("rank 1 is gone")])
def test_an_error_of_ours_arrives_as_the_actor_raised_it(error):
    with pytest.raises(type(error)) as caught:
        wait(failure(task_error(error)))
    assert str(caught.value) == str(error)  # a deadline inside the actor is not this one
    assert not isinstance(caught.value, RayError)


@pytest.mark.parametrize(
    "error",
    [
        task_error(ValueError("bad shape")),
        task_error(TimeoutError("socket")),
        RayActorError(error_msg="the actor died"),
        OutOfMemoryError("worker killed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_failure_is_an_engine_error_that_says_what_failed(error):
    with pytest.raises(EngineError, match="the score of reward-0 failed: ") as caught:
        wait(failure(error))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (task_error(ValueError("bad shape\n\nsee above")), "ValueError: bad shape; see above"),
        (task_error(KeyError()), "KeyError"),
        (
            RuntimeEnvSetupError("no\nroom"),
            "RuntimeEnvSetupError: Failed to set up runtime environment.; no; room",
        ),
        (
            ActorDiedError(RayTaskError("__init__", PYDANTIC, ValueError("no"), ip="::1")),
            "ActorDiedError: pydantic_core.ValidationError: 1 validation error for ModelConfig; "
            "Value error, max_model_len (512) is greater than n_positions=256",
        ),
        (
            ActorDiedError(RayTaskError("__init__", TRACEBACK, ValueError("no head"), ip="::1")),
            "ActorDiedError: ValueError: no head",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_engine_error_is_one_line_and_the_traceback_is_logged(caplog, error, message):
    with caplog.at_level("DEBUG", "actors.cluster.deadlines"), pytest.raises(EngineError) as caught:
        wait(failure(error))
    assert str(caught.value) == f"the score of reward-0 failed: {message}"
    (entry,) = caplog.records
    assert entry.exc_info and entry.exc_info[1] is error


def test_results_of_several_actors_come_in_order():
    refs = [result("a"), result("b")]
    assert asyncio.run(wait_for_all(refs, LONG_S, "ready")) == ["a", "b"]


def test_the_first_failure_ends_the_wait_for_several_actors():
    async def run() -> None:
        await wait_for_all([never(), failure(task_error(ValueError("x")))], LONG_S, "ready")

    start_s = time.perf_counter()
    with pytest.raises(EngineError, match="ready failed"):
        asyncio.run(run())
    assert time.perf_counter() - start_s < 1.0


async def collected(refs: AsyncIterator[Awaitable[str]], deadline_s: float = LONG_S) -> list[str]:
    return [item async for item in stream(refs, deadline_s, "the next group of rollout-0")]


async def refs_of(*refs: Awaitable[str]) -> AsyncIterator[Awaitable[str]]:
    for ref in refs:
        yield ref


def test_a_stream_hands_on_every_item_and_ends_with_its_source():
    assert asyncio.run(collected(refs_of(result("a"), result("b")))) == ["a", "b"]
    assert asyncio.run(collected(refs_of())) == []


def test_a_stream_that_stalls_ends_at_the_deadline_of_its_next_item(cancelled: list[object]):
    async def stalling() -> AsyncIterator[Awaitable[str]]:
        yield result("a")
        await asyncio.Event().wait()

    with pytest.raises(DeadlineError, match="the next group of rollout-0"):
        asyncio.run(collected(stalling(), SHORT_S))
    assert len(cancelled) == 1


def test_a_failing_item_ends_a_stream_with_its_own_error(cancelled: list[object]):
    refs = refs_of(result("a"), failure(task_error(NonFiniteError("NaN"))))
    with pytest.raises(NonFiniteError, match="NaN"):
        asyncio.run(collected(refs))


def test_a_stream_that_is_read_to_its_end_is_not_cancelled(cancelled: list[object]):
    assert asyncio.run(collected(refs_of(result("a"), result("b")))) == ["a", "b"]
    assert cancelled == []


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (GetTimeoutError("ray"), DeadlineError),
        (task_error(NonFiniteError("NaN")), NonFiniteError),
        (task_error(GetTimeoutError("inside the actor")), EngineError),
        (RayActorError(error_msg="died"), EngineError),
        (OutOfMemoryError("killed"), LostActorError),
    ],
)
def test_a_blocking_get_translates_failures_as_waiting_does(monkeypatch, raised, expected):
    def ray_get(ref: object, timeout: float) -> object:
        assert (ref, timeout) == ("ref", LONG_S)
        raise raised

    monkeypatch.setattr(ray, "get", ray_get)
    with pytest.raises(expected):
        get("ref", LONG_S, "the weights")


def test_the_first_failure_cancels_the_other_calls_and_leaves_nothing_to_print(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[str] = []

    async def other() -> str:
        try:
            return await never()
        finally:
            ended.append("other")

    with pytest.raises(EngineError, match="first"):
        asyncio.run(all_of([other(), failure(EngineError("first")), other()]))
    assert ended == ["other", "other"]
    assert asyncio.run(all_of([result("a"), result("b")])) == ["a", "b"]
    assert caplog.records == []
