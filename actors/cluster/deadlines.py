"""Deadlines: every wait for an actor has one.

The only module that calls `ray.get` and `ray.wait`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from conf.errors import DeadlineError, EngineError, LostActorError, ProjectError, in_one_line

T = TypeVar("T")

logger = logging.getLogger(__name__)

LOST = (LostActorError, DeadlineError)  # an actor died, or has made no progress in its time
_DEATHS = (
    *(RayActorError, WorkerCrashedError, NodeDiedError, LocalRayletDiedError),
    ObjectLostError,  # an answer that was on a node which died
    OutOfMemoryError,  # Ray has ended the actor, as one of its node that it chose
)
_USED = re.compile(r"was (\S+ used / \S+ limit)")  # in what Ray says of a node without memory


async def wait_for(ref: Awaitable[T], deadline_s: float, what: str) -> T:
    """Wait for one result of an actor.

    Raises:
        DeadlineError: after `deadline_s`, saying what was waited for.
        LostActorError: when the actor died.
        EngineError: when its call failed for a reason that is not ours.
        ProjectError: our own exception, as the actor raised it.
    """
    return await SharedDeadline(deadline_s).wait_for(ref, what)


class SharedDeadline:
    """One deadline for all calls to an actor that answers them in turn.

    Each answer starts it anew for the calls that still wait: an actor with a long queue is at work,
    one that answers nobody is not.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._timers: set[asyncio.Timeout] = set()

    @property
    def num_waiting(self) -> int:
        """Calls without an answer."""
        return len(self._timers)

    async def wait_for(self, ref: Awaitable[T], what: str) -> T:
        """Wait for one result; raises what the function `wait_for` raises."""
        timer = asyncio.timeout(self._deadline_s)
        self._timers.add(timer)
        try:
            async with timer:
                result = await ref
        except RayError as error:  # first: one that wraps a TimeoutError of the actor is one too
            raise translate(error, what) from error
        except TimeoutError as error:
            raise DeadlineError(f"{what} did not happen within {self._deadline_s:g} s") from error
        finally:
            self._timers.discard(timer)
        anew_s = asyncio.get_running_loop().time() + self._deadline_s
        for other in self._timers:
            if not other.expired():
                other.reschedule(anew_s)
        return result


async def wait_for_all(refs: Sequence[Awaitable[T]], deadline_s: float, what: str) -> list[T]:
    """Wait for the results of several actors under one deadline; the first failure wins."""
    return await all_of(wait_for(ref, deadline_s, what) for ref in refs)


async def all_of(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all calls, in order; the first that fails cancels the others and is raised."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        # Else asyncio prints, at the end of the program, what nobody has asked them.
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def stream(generator: Any, deadline_s: float, what: str) -> AsyncIterator[Any]:  # noqa: ANN401 - Ray's streaming generator is untyped
    """Yield what a streaming actor call yields, with a deadline on each item.

    A call whose caller leaves before its end is cancelled.
    """
    iterator = generator.__aiter__()
    ended = False
    try:
        while True:
            try:
                ref = await asyncio.wait_for(iterator.__anext__(), deadline_s)
            except StopAsyncIteration:
                ended = True
                return
            except RayError as error:
                raise translate(error, what) from error
            except TimeoutError as error:
                raise DeadlineError(f"{what} did not happen within {deadline_s:g} s") from error
            yield await wait_for(ref, deadline_s, what)
    finally:
        if not ended:
            ray.cancel(generator)


def get(ref: Any, deadline_s: float, what: str) -> Any:  # noqa: ANN401 - object references are untyped
    """Block for one result or a list of results; for code that has no event loop."""
    try:
        return ray.get(ref, timeout=deadline_s)
    except RayTaskError as error:  # first: it may wrap a GetTimeoutError of the actor
        raise translate(error, what) from error
    except GetTimeoutError as error:
        raise DeadlineError(f"{what} did not happen within {deadline_s:g} s") from error
    except RayError as error:
        raise translate(error, what) from error


def translate(error: Exception, what: str) -> ProjectError:
    """The project's own exception inside one of Ray's, or an EngineError that names the cause.

    An actor whose constructor raises has not been lost: another would raise the same.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, ProjectError):
        return cause
    logger.debug("%s failed", what, exc_info=error)
    if isinstance(error, _DEATHS) and not getattr(error, "actor_init_failed", False):
        return LostActorError(f"{what} failed: {_death(error)}")
    return EngineError(f"{what} failed: {in_one_line(cause or error)}")


def _death(error: Exception) -> str:
    """What Ray says of a death, without the list of identifiers and of what is common."""
    if isinstance(error, OutOfMemoryError):
        used = _USED.search(str(error))
        why = used[1] if used else in_one_line(str(error))
        return (
            f"Ray ended it because its node ran out of memory ({why}); end what else runs there, "
            "or give the node fewer actors or smaller KV caches"
        )
    lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
    said, *_ = "\n".join(lines).partition(" Some common causes include")
    return f"{type(error).__name__}: {in_one_line(said)}"
