"""Turns: policy ranks and engines that share their devices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from actors.cluster.deadlines import LOST, all_of, wait_for
from actors.engines.forward_check import ForwardCheck
from actors.groups.handles import EngineHandle
from actors.groups.supervision import Seat, Supervisor
from actors.groups.trainer import Ranks, TrainGroup
from rl.loss import Objective
from rl.packing import Packing
from rl.parcels import Minibatch
from rl.types import FloatArray, UpdateReport


class TurnTakingGroup(TrainGroup):
    """Policy ranks that share their devices: the engines sleep while the policy is updated.

    An engine that is lost over it leaves its part of the device free; it starts again when somebody
    needs it, which is not before the others are awake.
    """

    def __init__(
        self,
        gang: Seat[Ranks],
        packing: Packing,
        deadline_s: float,
        supervisor: Supervisor,
        *,
        engines: Sequence[Seat[EngineHandle]],
    ) -> None:
        super().__init__(gang, packing, deadline_s, supervisor)
        self._engines = tuple(engines)
        self._asleep = False

    async def outputs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        """Log-probs of the targets, while the engines sleep."""
        await self._put_to_sleep()
        return await super().outputs(minibatch)

    async def update(
        self,
        minibatch: Minibatch,
        old_logprobs: tuple[tuple[FloatArray, ...], ...] | None,
        objective: Objective,
    ) -> UpdateReport:
        """One optimizer step, while the engines sleep."""
        await self._put_to_sleep()
        return await super().update(minibatch, old_logprobs, objective)

    async def publish(self, policy_version: int) -> None:
        """Wake the engines and give the rollout engines the current weights."""
        await self.give_way()
        await super().publish(policy_version)
        await self._empty_handed()  # of what was gathered and shared

    async def self_check(self, model: str, plain_bytes: int) -> ForwardCheck:
        """Check how samples are read, while the engines sleep."""
        await self._put_to_sleep()
        return await super().self_check(model, plain_bytes)

    async def give_way(self) -> None:
        """Wake the engines."""
        if self._asleep:
            await self._empty_handed()
            await self._tell(lambda engine: engine.wake.remote(), "waking")
            self._asleep = False

    async def _empty_handed(self) -> None:
        await self._call(lambda rank: rank.give_way.remote(), "giving way to the engines")

    async def _put_to_sleep(self) -> None:
        if not self._asleep:
            await self._tell(lambda engine: engine.sleep.remote(), "putting to sleep")
            self._asleep = True

    async def _tell(self, ask: Callable[[EngineHandle], Awaitable[None]], what: str) -> None:
        async def tell(seat: Seat[EngineHandle]) -> None:
            handle = seat.handle
            try:
                await wait_for(ask(handle), self._deadline_s, f"{what} {seat.name}")
            except LOST as why:
                seat.lose(handle, why)

        await all_of(tell(seat) for seat in self._engines if seat.admitted)
