"""Training actors: one DeepSpeed ZeRO-3 rank each, and the group of them as the driver sees it.

The same actors train a policy (`head="lm"`) and a reward model (`head="score"`); the objective of
an update is passed with the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from actors.cluster.deadlines import all_of, wait_for, wait_for_all
from actors.cluster.shared_files import refuse_blind, signpost
from actors.engines.forward_check import ForwardCheck
from actors.engines.specs import TrainSpec, WeightBackend
from actors.groups.handles import RolloutHandle, TrainHandle, WeightRoute
from actors.groups.supervision import Seat, Supervisor
from actors.groups.weights import unless_one_dies
from conf.errors import DeadlineError, EngineError, LostActorError, LostPolicyError
from rl.loss import LossDenominators, Objective
from rl.packing import Packing
from rl.parcels import Minibatch
from rl.types import FloatArray, UpdateReport

T = TypeVar("T")
Ranks = tuple[TrainHandle, ...]

_FREE_PORT = "a free port of policy-0"
_SIGN_OF_LIFE_S = 10.0  # for an answer to a question that needs no work


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The rollout engines that weights are published to, and how they travel."""

    engines: tuple[Seat[RolloutHandle], ...]
    tensor_parallel: int  # GPUs of one engine
    backend: WeightBackend


class TrainGroup:
    """All ranks of one model; satisfies `rl.interfaces.PolicyFleet`.

    What a rank holds is nothing without the others, so that one which is lost ends them all, with a
    LostPolicyError. `rebuild` starts them again, from the initial weights.
    """

    def __init__(
        self,
        gang: Seat[Ranks],
        packing: Packing,
        deadline_s: float,
        supervisor: Supervisor,
    ) -> None:
        self.packing = packing  # until a self-check says otherwise
        self.num_updates_begun = 0  # optimizer steps that the ranks were asked for
        self.gang = gang
        self._deadline_s = deadline_s
        self._supervisor = supervisor
        self._spec: TrainSpec | None = None
        self._routing: Routing | None = None
        self._connected: list[RolloutHandle] = []
        self._version = 0  # that was published last
        self._changed = False  # the weights are no longer those of `_version`
        self._weights = asyncio.Condition()  # its lock: who changes or publishes the weights

    @property
    def handles(self) -> Ranks:
        """The ranks, in order."""
        return self.gang.handle

    @property
    def num_ranks(self) -> int:
        """How many there are."""
        return len(self.gang.actors)

    async def start(self, spec: TrainSpec) -> None:
        """Load the model on all ranks."""
        self._spec = spec
        await self._admit()

    async def rebuild(self) -> None:
        """Start the ranks anew, and give the engines their initial weights as version 0.

        Raises:
            LostActorError: when they have been started as often as they may.
        """
        await self._admit()
        self.num_updates_begun = 0
        self._connected = []
        await self.publish(0)

    async def _admit(self) -> None:
        spec = self._spec
        if spec is None:
            raise RuntimeError("start() comes first")

        async def start(_: Ranks) -> None:
            deadline_s = self._supervisor.start_deadline_s
            found = await self._ask(lambda _, rank: rank.address.remote(), _FREE_PORT, deadline_s)
            address, port = found[0]
            await self._ask(
                lambda _, rank: rank.start.remote(spec, address, port),
                "the start of the policy ranks",
                deadline_s,
            )

        await self._supervisor.admit(self.gang, start)

    def unchecked(self) -> None:
        """Share nothing by `auto`: without a self-check nobody knows that it changes no number."""
        self.packing = self.packing.unchecked()

    async def self_check(self, model: str, plain_bytes: int) -> ForwardCheck:
        """Check how samples are read, and pack and share only where that changes no number.

        Raises:
            EngineError: for a model that says other things here than by itself.
        """
        found = await self._call(lambda rank: rank.self_check.remote(plain_bytes), "the self-check")
        self.packing = self.packing.checked(packs=found[0].packs, shares=found[0].shares)
        found[0].check(model)
        return found[0]

    def route(self, routing: Routing) -> None:
        """Publish to these rollout engines from now on."""
        self._routing = routing

    async def outputs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        """Log-probs of the labels, or scores: by rank, by microbatch, [M]."""
        of_rank = minibatch.parcels_by_rank
        what = "log-probs of the policy"
        return tuple(
            await self._call_ranks(lambda number, rank: rank.outputs.remote(of_rank[number]), what)
        )

    async def update(
        self,
        minibatch: Minibatch,
        old_logprobs: tuple[tuple[FloatArray, ...], ...] | None,
        objective: Objective,
    ) -> UpdateReport:
        """One optimizer step over all ranks."""
        norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
        old = old_logprobs or (None,) * self.num_ranks
        of_rank = minibatch.parcels_by_rank
        async with self._weights:
            self._changed = True
        self.num_updates_begun += 1
        reports = await self._call_ranks(
            lambda number, rank: rank.update.remote(of_rank[number], old[number], objective, norm),
            "an optimizer step",
        )
        return reports[0]

    # --- weights ---------------------------------------------------------------------------------

    async def publish(self, policy_version: int) -> None:
        """Make every rollout engine that works serve the current weights.

        One that is lost on the way gets them when another has taken its place.
        """
        async with self._weights:
            if self._routing is not None:
                working = [seat for seat in self._routing.engines if seat.admitted]
                await self._send(self._routing, working, policy_version)
            self._version, self._changed = policy_version, False
            self._weights.notify_all()

    async def give_weights(self, engine: Seat[RolloutHandle]) -> None:
        """Make a new engine serve the version that was published last.

        While an optimizer step changes the weights, it waits for the publication that follows.
        """
        async with self._weights:
            await self._weights.wait_for(lambda: not self._changed)
            if self._routing is not None:
                await self._send(self._routing, [engine], self._version)
        if engine.lost is not None:
            raise LostActorError(str(engine.lost))

    async def _send(
        self, routing: Routing, engines: Sequence[Seat[RolloutHandle]], version: int
    ) -> None:
        if not engines:
            return
        handles = {seat.name: seat.handle for seat in engines}
        if list(handles.values()) != self._connected:
            await self._connect(routing, engines)
        what, ranks = f"publication of version {version}", self.gang.handle
        published = self._call(lambda rank: rank.publish.remote(version), what)
        try:
            if routing.backend == "nccl":
                published = unless_one_dies(published, handles)
            lost, *_ = await published
        except LostActorError as error:  # an engine, and the ranks do not leave the broadcast
            self.gang.lose(ranks, LostActorError(f"{what} waits for an engine: {error}"))
            lost = dict.fromkeys(handles, f"{what} was cut short: {error}")
        except LostPolicyError as error:  # whoever was sent a part has weights of two versions
            lost = dict.fromkeys(handles, f"{what} was cut short: {error}")
        for seat in engines:
            if (why := lost.get(seat.name)) is not None:
                seat.lose(handles[seat.name], LostActorError(why))
        if self.gang.lost is not None:
            raise LostPolicyError(str(self.gang.lost))

    async def _connect(self, routing: Routing, engines: Sequence[Seat[RolloutHandle]]) -> None:
        route = WeightRoute(
            engines={seat.name: seat.handle for seat in engines},
            tensor_parallel=routing.tensor_parallel,
            backend=routing.backend,
            # Less than that of the publication: it goes on when an engine has not answered.
            deadline_s=self._deadline_s / 2,
        )
        address, port = (await self._call(lambda rank: rank.address.remote(), _FREE_PORT))[0]
        await self._call(
            lambda rank: rank.connect.remote(route, address, port),
            "the connection of policy and rollout",
        )
        self._connected = list(route.engines.values())

    async def give_way(self) -> None:
        """Leave the devices to the engines, where they are shared."""

    # --- files -----------------------------------------------------------------------------------

    async def check_shared(self, directory: Path, key: str) -> None:
        """See that ranks find in a directory what is put there from here; UserError names `key`."""
        with signpost(directory) as (path, text):
            what = f"a look at {directory}"
            seen = await self._call(lambda rank: rank.sees.remote(path, text), what)
        found = zip(self.gang.actors, seen, strict=True)
        blind = {name: self._supervisor.homes.node_of(name) for name, sees in found if not sees}
        refuse_blind(directory, key, blind)

    async def save_hf(self, directory: Path) -> None:
        """Write a Hugging Face directory."""
        path = str(directory.absolute())  # an actor has a working directory of its own
        await self._call(lambda rank: rank.save_hf.remote(path), f"writing {directory}")

    async def save_adapter(self, directory: Path) -> None:
        """Write the adapters alone, as peft does."""
        await self._call(
            lambda rank: rank.save_adapter.remote(str(directory)), f"writing {directory}"
        )

    async def save_checkpoint(self, directory: Path) -> None:
        """Write what a resumed run needs."""
        path = str(directory.absolute())
        await self._call(lambda rank: rank.save_checkpoint.remote(path), f"writing {directory}")

    async def load_checkpoint(self, directory: Path) -> None:
        """Continue from a checkpoint."""
        path = str(directory.absolute())
        await self._call(lambda rank: rank.load_checkpoint.remote(path), f"reading {directory}")

    async def partition_reports(self) -> list[dict[str, int]]:
        """What each rank holds: the proof that parameters are partitioned."""
        return await self._call(lambda rank: rank.partition_report.remote(), "the partition report")

    # --- calls -----------------------------------------------------------------------------------

    async def _call(self, ask: Callable[[TrainHandle], Awaitable[T]], what: str) -> list[T]:
        return await self._call_ranks(lambda _, rank: ask(rank), what)

    async def _call_ranks(
        self, ask: Callable[[int, TrainHandle], Awaitable[T]], what: str
    ) -> list[T]:
        """What the ranks answer; with one that is lost all are given up."""
        ranks = self.gang.handle
        try:
            return await self._ask(ask, what, self._deadline_s)
        except LostActorError as error:
            self.gang.lose(ranks, error)
            raise LostPolicyError(str(error)) from error

    async def _ask(
        self, ask: Callable[[int, TrainHandle], Awaitable[T]], what: str, deadline_s: float
    ) -> list[T]:
        """What the ranks answer.

        Raises:
            LostActorError: naming the ranks that died, or at a deadline those that are silent.
        """
        ranks = self.gang.handle
        try:
            refs = [ask(number, rank) for number, rank in enumerate(ranks)]
            return await wait_for_all(refs, deadline_s, what)
        except (EngineError, DeadlineError) as error:
            # What fails first is often a rank that lost its connection to the one that died.
            dead, silent = await self._signs_of_life(ranks)
            if dead:
                raise LostActorError(f"{', '.join(dead)} died: {error}") from error
            # One that raises leaves the others waiting: only at a deadline is silence a loss.
            if silent and isinstance(error, DeadlineError):
                raise LostActorError(f"no answer from {', '.join(silent)}: {error}") from error
            raise

    async def _signs_of_life(self, ranks: Ranks) -> tuple[list[str], list[str]]:
        """The ranks that are dead, and those that do not say at once where they are."""
        dead: list[str] = []
        silent: list[str] = []

        async def listen(name: str, rank: TrainHandle) -> None:
            try:
                await wait_for(rank.address.remote(), _SIGN_OF_LIFE_S, f"a sign of life of {name}")
            except EngineError:
                dead.append(name)
            except DeadlineError:
                silent.append(name)

        await all_of(map(listen, self.gang.actors, ranks))
        return sorted(dead), sorted(silent)
