"""Dealing: which engine samples which asks of a call, and who takes over what one still owes.

Seeds go by step and prompt, so that it does not matter which engine samples a group: the first
answer wins, and others to the same prompt are not waited for.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from actors.cluster.deadlines import LOST
from actors.groups.handles import RolloutHandle
from actors.groups.supervision import Seat, Supervisor
from rl.types import Ask, PromptGroup

Engine = Seat[RolloutHandle]
Sample = Callable[[Engine, Sequence[Ask]], AsyncIterator[PromptGroup]]

_LOOK_S = 0.2  # between two looks for stragglers


class Dealing:
    """The asks of one call of `generate`, and the engines that were asked for them.

    `owed` are the prompt ids that each engine has still to answer, those of other calls too.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        owed: dict[str, set[str]],
        sample: Sample,
        admit: Callable[[Engine], Awaitable[None]],
        supervisor: Supervisor,
    ) -> None:
        self._engines = tuple(engines)
        self._sample = sample
        self._admit = admit
        self._supervisor = supervisor
        self._owed = owed
        self._missing: dict[str, Ask] = {}
        self._streams: set[asyncio.Task[None]] = set()
        self._merged: asyncio.Queue[PromptGroup] = asyncio.Queue()
        self._took_s: list[float] = []

    async def groups(self, asks: Sequence[Ask]) -> AsyncIterator[PromptGroup]:
        """Each group when its first answer is there."""
        self._missing = {ask.prompt.id: ask for ask in asks}
        try:
            async with asyncio.TaskGroup() as tasks:
                self._deal(asks, self._engines, tasks)
                watch = tasks.create_task(self._watch(len(asks), tasks))
                for _ in asks:
                    yield await self._merged.get()
                for stream in (watch, *self._streams):
                    stream.cancel()
        finally:  # a task that is cancelled before it begins gives nothing back
            for owed in self._owed.values():
                owed.difference_update(ask.prompt.id for ask in asks)

    def _deal(
        self, asks: Sequence[Ask], engines: Sequence[Engine], tasks: asyncio.TaskGroup
    ) -> None:
        """Give each ask to the engine that owes least."""
        shares: dict[str, list[Ask]] = {engine.name: [] for engine in engines}
        for ask in asks:
            name = min(shares, key=lambda name: len(self._owed[name]))
            self._owed[name].add(ask.prompt.id)
            shares[name].append(ask)
        for engine in engines:
            if shares[engine.name]:
                tasks.create_task(self._pump(engine, shares[engine.name], tasks))

    async def _pump(self, engine: Engine, share: Sequence[Ask], tasks: asyncio.TaskGroup) -> None:
        """Take what an engine answers; of one that is lost, ask the others for the rest."""
        await self._admit(engine)
        handle, owed = engine.handle, self._owed[engine.name]
        wanted = [ask for ask in share if ask.prompt.id in self._missing]
        stream = asyncio.ensure_future(self._take(engine, wanted))
        self._streams.add(stream)
        try:
            await asyncio.wait([stream])
            if not stream.cancelled():
                stream.result()
        except LOST as why:
            engine.lose(handle, why)
            rest = [ask for ask in wanted if ask.prompt.id in self._missing]
            self._supervisor.note("fault/asked_again", len(rest))
            working = [seat for seat in self._engines if seat.admitted]
            self._deal(rest, working or self._engines, tasks)
            await self._admit(engine)
        finally:
            stream.cancel()
            self._streams.discard(stream)
            owed.difference_update(ask.prompt.id for ask in share)

    async def _take(self, engine: Engine, share: Sequence[Ask]) -> None:
        if not share:
            return
        start_s = asyncio.get_running_loop().time()
        async for group in self._sample(engine, share):
            self._owed[engine.name].discard(group.prompt.id)
            if self._missing.pop(group.prompt.id, None) is not None:
                self._took_s.append(asyncio.get_running_loop().time() - start_s)
                await self._merged.put(group)

    async def _watch(self, num_asks: int, tasks: asyncio.TaskGroup) -> None:
        """Ask idle engines for what others have had for far longer than half of the groups took."""
        factor = self._supervisor.straggler_factor
        clock = asyncio.get_running_loop().time
        start_s, asked_twice = clock(), set[str]()
        while factor is not None and len(self._engines) > 1:
            await asyncio.sleep(_LOOK_S)
            idle = [seat for seat in self._engines if seat.admitted and not self._owed[seat.name]]
            if not idle or 2 * len(self._took_s) < num_asks:
                continue
            if clock() - start_s <= factor * statistics.median(self._took_s):
                continue
            slow = [ask for id, ask in self._missing.items() if id not in asked_twice]
            asked_twice.update(ask.prompt.id for ask in slow)
            self._supervisor.note("fault/stragglers", len(slow))
            self._deal(slow, idle, tasks)
