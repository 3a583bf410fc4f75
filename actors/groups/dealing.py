"""Dealing: which engine samples which prompts of a call, and who takes over what one still owes.

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
from rl.types import Prompt, PromptGroup

Engine = Seat[RolloutHandle]
Sample = Callable[[Engine, Sequence[Prompt]], AsyncIterator[PromptGroup]]

_LOOK_S = 0.2  # between two looks for stragglers


class Dealing:
    """The prompts of one call of `generate`, and the engines that were asked for them."""

    def __init__(
        self,
        engines: Sequence[Engine],
        sample: Sample,
        admit: Callable[[Engine], Awaitable[None]],
        supervisor: Supervisor,
    ) -> None:
        self._engines = tuple(engines)
        self._sample = sample
        self._admit = admit
        self._supervisor = supervisor
        self._missing: dict[str, Prompt] = {}
        self._owed: dict[str, set[str]] = {engine.name: set() for engine in engines}
        self._streams: set[asyncio.Task[None]] = set()
        self._merged: asyncio.Queue[PromptGroup] = asyncio.Queue()
        self._took_s: list[float] = []

    async def groups(self, prompts: Sequence[Prompt]) -> AsyncIterator[PromptGroup]:
        """Each group when its first answer is there."""
        self._missing = {prompt.id: prompt for prompt in prompts}
        async with asyncio.TaskGroup() as tasks:
            self._deal(prompts, self._engines, tasks)
            watch = tasks.create_task(self._watch(len(prompts), tasks))
            for _ in prompts:
                yield await self._merged.get()
            for stream in (watch, *self._streams):
                stream.cancel()

    def _deal(
        self, prompts: Sequence[Prompt], engines: Sequence[Engine], tasks: asyncio.TaskGroup
    ) -> None:
        for index, engine in enumerate(engines):
            share = prompts[index :: len(engines)]
            if share:
                self._owed[engine.name].update(prompt.id for prompt in share)
                tasks.create_task(self._pump(engine, share, tasks))

    async def _pump(
        self, engine: Engine, share: Sequence[Prompt], tasks: asyncio.TaskGroup
    ) -> None:
        """Take what an engine answers; of one that is lost, ask the others for the rest."""
        await self._admit(engine)
        handle, owed = engine.handle, self._owed[engine.name]
        wanted = [prompt for prompt in share if prompt.id in self._missing]
        stream = asyncio.ensure_future(self._take(engine, wanted))
        self._streams.add(stream)
        try:
            await asyncio.wait([stream])
            if not stream.cancelled():
                stream.result()
        except LOST as why:
            engine.lose(handle, why)
            rest = [prompt for prompt in wanted if prompt.id in self._missing]
            self._supervisor.note("fault/asked_again", len(rest))
            working = [seat for seat in self._engines if seat.admitted]
            self._deal(rest, working or self._engines, tasks)
            await self._admit(engine)
        finally:
            stream.cancel()
            self._streams.discard(stream)
            owed.difference_update(prompt.id for prompt in share)

    async def _take(self, engine: Engine, share: Sequence[Prompt]) -> None:
        if not share:
            return
        start_s = asyncio.get_running_loop().time()
        async for group in self._sample(engine, share):
            self._owed[engine.name].discard(group.prompt.id)
            if self._missing.pop(group.prompt.id, None) is not None:
                self._took_s.append(asyncio.get_running_loop().time() - start_s)
                await self._merged.put(group)

    async def _watch(self, num_prompts: int, tasks: asyncio.TaskGroup) -> None:
        """Ask idle engines for what others have had for far longer than half of the groups took."""
        factor = self._supervisor.straggler_factor
        clock = asyncio.get_running_loop().time
        start_s, asked_twice = clock(), set[str]()
        while factor is not None and len(self._engines) > 1:
            await asyncio.sleep(_LOOK_S)
            idle = [seat for seat in self._engines if seat.admitted and not self._owed[seat.name]]
            if not idle or 2 * len(self._took_s) < num_prompts:
                continue
            if clock() - start_s <= factor * statistics.median(self._took_s):
                continue
            slow = [prompt for id, prompt in self._missing.items() if id not in asked_twice]
            asked_twice.update(prompt.id for prompt in slow)
            self._supervisor.note("fault/stragglers", len(slow))
            self._deal(slow, idle, tasks)
