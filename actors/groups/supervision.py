"""Supervision: an actor that died, or has made no progress in its time, is replaced in its place.

A seat is the place of one actor in its group, and outlives the actor. Whoever calls an actor and
finds it lost says so to the seat (`lose`), and whoever needs a seat asks the supervisor to fill it
(`admit`): the first one starts another actor, the others wait for it. An actor is admitted once it
has started and holds what it needs to work, such as the current weights. The ranks of the policy
share one seat, because their state is in all of them together.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import ray

from actors.cluster.deadlines import LOST
from conf.errors import LostActorError, ProjectError
from conf.schema import SupervisionConfig
from rl.base.console import Console

HandleT = TypeVar("HandleT")


def kill(handle: Any) -> None:  # noqa: ANN401 - handles are of Ray, behind our protocols
    """End the process of an actor, also of one that is stopped."""
    ray.kill(handle)


class Seat(Generic[HandleT]):
    """The place of one actor in its group: the actor that has it now, and how to make another."""

    def __init__(
        self,
        name: str,
        create: Callable[[], HandleT],
        *,
        actors: Sequence[str] = (),
        kill: Callable[[HandleT], None] = kill,
    ) -> None:
        self.name = name
        self.actors = tuple(actors) or (name,)  # that sit here together
        self.handle = create()
        self.admitted = False
        self.lost: ProjectError | None = None  # why its actor is gone or was given up
        self.restarted_s: list[float] = []  # when, by the monotonic clock
        self.filling = asyncio.Lock()
        self._create = create
        self._kill = kill

    @property
    def group(self) -> str:
        """Name of the group: "rollout" of "rollout-1"."""
        return self.name.partition("-")[0]

    def lose(self, handle: HandleT, why: ProjectError) -> None:
        """Give an actor up and end its process, unless another has taken its place already."""
        if handle is self.handle and self.lost is None:
            self.admitted, self.lost = False, why
            self.end()

    def renew(self) -> None:
        """Put another actor in the place of the one that was lost."""
        self.handle = self._create()
        self.lost = None
        self.restarted_s.append(time.monotonic())

    def end(self) -> None:
        """End the process of the actor."""
        self._kill(self.handle)


class Homes(Protocol):
    """The nodes of a run, as `actors.cluster.placement` knows them."""

    def node_of(self, actor: str) -> str:
        """Address of the node where the actor of this name is placed."""
        ...

    async def settled(self, actors: Sequence[str]) -> None:
        """Return when none of these actors is placed on a node that is gone."""
        ...


class Supervisor:
    """Replaces lost actors within the budget of each, says so, and counts."""

    def __init__(
        self,
        cfg: SupervisionConfig,
        start_deadline_s: float,
        homes: Homes,
        console: Console,
    ) -> None:
        self.start_deadline_s = start_deadline_s  # of one actor
        self.straggler_factor = cfg.straggler_factor
        self.homes = homes
        self._cfg = cfg
        self._console = console
        self._counts: Counter[str] = Counter()

    def note(self, metric: str, number: int = 1) -> None:
        """Count what a loss has cost, under a name of `rl.metrics`."""
        self._counts[metric] += number

    def take_counts(self) -> dict[str, float]:
        """What was counted since the last call."""
        found = {name: float(count) for name, count in self._counts.items() if count}
        self._counts.clear()
        return found

    async def admit(self, seat: Seat[HandleT], start: Callable[[HandleT], Awaitable[Any]]) -> None:
        """Return when the actor of the seat works; where it is lost, start another.

        `start` waits until an actor has started and gives it what it needs.

        Raises:
            LostActorError: when the seat has used up the restarts that it has in a window of time.
        """
        async with seat.filling:
            while not seat.admitted:
                if seat.lost is not None:
                    await self._replace(seat, seat.lost)
                handle = seat.handle
                try:
                    await start(handle)
                except LOST as why:
                    seat.lose(handle, why)
                else:
                    seat.admitted = seat.lost is None

    async def _replace(self, seat: Seat[Any], why: ProjectError) -> None:
        try:
            nodes = sorted({self.homes.node_of(actor) for actor in seat.actors})
        except LostActorError as error:
            raise LostActorError(f"{seat.name} is lost: {why}; {error}") from why
        about = f"{seat.name} (node {', '.join(nodes)}) is lost: {why}"
        allowed, window_s = self._cfg.restarts, self._cfg.window_s
        began_s = time.monotonic() - window_s
        number = 1 + sum(restart_s > began_s for restart_s in seat.restarted_s)
        if number > allowed:
            raise LostActorError(
                f"{about}; supervision.restarts={allowed} allows no further restart within "
                f"{window_s:g} s"
            ) from why
        self._console.warn(
            f"{about}; it is started again ({number} of {allowed}), and the run goes on"
        )
        await asyncio.sleep(self._cfg.backoff_s * 2 ** (number - 1))
        await self.homes.settled(seat.actors)  # one that starts on a dead node is lost at once
        seat.renew()
        self.note(f"fault/{seat.group}_restarts")
