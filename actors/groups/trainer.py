"""Training actors: one DeepSpeed ZeRO-3 rank each, and the group of them as the driver sees it.

The same actors train a policy (`head="lm"`) and a reward model (`head="score"`); the objective of
an update is passed with the call.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import ray

from actors.cluster.deadlines import wait_for, wait_for_all
from actors.engines.forward_check import ForwardCheck
from actors.engines.specs import TrainSpec, WeightBackend
from actors.groups.handles import RolloutHandle, TrainHandle, WeightRoute, call
from actors.groups.weights import WeightPublisher
from rl.loss import LossDenominators, Objective
from rl.packing import Packing
from rl.types import FloatArray, Microbatch, Minibatch, UpdateReport

if TYPE_CHECKING:
    from actors.engines.deepspeed_engine import TrainEngine

T = TypeVar("T")


class TrainActor:
    """One ZeRO-3 rank; every method is a collective that all ranks are called for together."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        self._rank = rank
        self._num_ranks = num_ranks
        self._started: TrainEngine | None = None
        self._publisher: WeightPublisher | None = None

    @property
    def _engine(self) -> TrainEngine:
        if self._started is None:
            raise RuntimeError("start() comes first")
        return self._started

    def address(self) -> tuple[str, int]:
        """Where rank 0 listens for the others."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(self, spec: TrainSpec, master_addr: str, master_port: int) -> None:
        """Load the model and join the other ranks."""
        from actors.engines.deepspeed_engine import TrainEngine  # noqa: PLC0415 - never in the driver

        self._started = TrainEngine(spec, self._rank, self._num_ranks, master_addr, master_port)

    def connect(self, route: WeightRoute, master_addr: str, master_port: int) -> None:
        """Agree with the rollout engines on how weights travel."""
        self._publisher = WeightPublisher(
            self._engine, self._rank, route, (master_addr, master_port)
        )

    def self_check(self, plain_bytes: int) -> ForwardCheck:
        """Compare every way to read few short samples."""
        return self._engine.self_check(plain_bytes)

    def outputs(self, microbatches: Sequence[Microbatch]) -> tuple[FloatArray, ...]:
        """What the head says of the labels [M] of each microbatch: log-probs, or scores."""
        return self._engine.outputs(microbatches)

    def update(
        self,
        microbatches: Sequence[Microbatch],
        old_logprobs: tuple[FloatArray, ...] | None,
        objective: Objective,
        norm: LossDenominators,
    ) -> UpdateReport:
        """One optimizer step."""
        return self._engine.update(microbatches, old_logprobs, objective, norm)

    def publish(self, policy_version: int) -> None:
        """Send the weights to the rollout engines."""
        if self._publisher is None:
            raise RuntimeError("connect() comes before publish()")
        self._publisher.publish(policy_version)

    def save_hf(self, directory: str) -> None:
        """Write a Hugging Face directory."""
        self._engine.save_hf(Path(directory))

    def save_checkpoint(self, directory: str) -> None:
        """Write what a resumed run needs."""
        self._engine.save_checkpoint(Path(directory))

    def load_checkpoint(self, directory: str) -> None:
        """Continue from a checkpoint."""
        self._engine.load_checkpoint(Path(directory))

    def partition_report(self) -> dict[str, int]:
        """How many parameters this rank holds, of how many."""
        return self._engine.partition_report()


class TrainGroup:
    """All ranks of one model; satisfies `rl.interfaces.PolicyFleet`."""

    def __init__(
        self,
        handles: Sequence[TrainHandle],
        packing: Packing,
        deadline_s: float,
        start_deadline_s: float,
    ) -> None:
        self.handles = tuple(handles)
        self.num_ranks = len(self.handles)
        self.packing = packing  # until a self-check says otherwise
        self.deadline_s = deadline_s
        self.start_deadline_s = start_deadline_s
        self.num_updates_begun = 0  # optimizer steps that the ranks were asked for

    async def start(self, spec: TrainSpec) -> None:
        """Load the model on all ranks."""
        address, port = await self._free_address()
        await call(
            self.handles,
            lambda rank: rank.start.remote(spec, address, port),
            self.start_deadline_s,
            "the start of the policy ranks",
        )

    def unchecked(self) -> None:
        """Share nothing by `auto`: without a self-check nobody knows that it changes no number."""
        if self.packing.share_prefix == "auto":
            self.packing = replace(self.packing, share_prefix="off")

    async def self_check(self, model: str, plain_bytes: int) -> ForwardCheck:
        """Check how samples are read, and pack and share only where that changes no number.

        Raises:
            EngineError: for a model that says other things here than by itself.
        """
        found = await self._call(lambda rank: rank.self_check.remote(plain_bytes), "the self-check")
        share_prefix = self.packing.share_prefix if found[0].shares else "off"
        self.packing = replace(self.packing, packs=found[0].packs, share_prefix=share_prefix)
        found[0].check(model)
        return found[0]

    async def connect(
        self, engines: Sequence[RolloutHandle], tensor_parallel: int, backend: WeightBackend
    ) -> None:
        """Agree with the rollout engines on how weights travel."""
        route = WeightRoute(
            engines=tuple(engines),
            tensor_parallel=tensor_parallel,
            backend=backend,
            deadline_s=self.deadline_s,
        )
        address, port = await self._free_address()
        await self._call(
            lambda rank: rank.connect.remote(route, address, port),
            "the connection of policy and rollout",
        )

    async def outputs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        """Log-probs of the labels, or scores: by rank, by microbatch, [M]."""
        refs = [
            handle.outputs.remote(microbatches)
            for handle, microbatches in zip(
                self.handles, minibatch.microbatches_by_rank, strict=True
            )
        ]
        return tuple(await wait_for_all(refs, self.deadline_s, "log-probs of the policy"))

    async def update(
        self,
        minibatch: Minibatch,
        old_logprobs: tuple[tuple[FloatArray, ...], ...] | None,
        objective: Objective,
    ) -> UpdateReport:
        """One optimizer step over all ranks."""
        norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
        old = old_logprobs or (None,) * self.num_ranks
        self.num_updates_begun += 1
        refs = [
            handle.update.remote(microbatches, old[rank], objective, norm)
            for rank, (handle, microbatches) in enumerate(
                zip(self.handles, minibatch.microbatches_by_rank, strict=True)
            )
        ]
        reports = await wait_for_all(refs, self.deadline_s, "an optimizer step")
        return reports[0]

    async def publish(self, policy_version: int) -> None:
        """Make every rollout engine serve the current weights."""
        await self._call(
            lambda rank: rank.publish.remote(policy_version),
            f"publication of version {policy_version}",
        )

    async def give_way(self) -> None:
        """Leave the devices to the engines, where they are shared."""

    async def save_hf(self, directory: Path) -> None:
        """Write a Hugging Face directory."""
        await self._call(lambda rank: rank.save_hf.remote(str(directory)), f"writing {directory}")

    async def save_checkpoint(self, directory: Path) -> None:
        """Write what a resumed run needs."""
        await self._call(
            lambda rank: rank.save_checkpoint.remote(str(directory)), f"writing {directory}"
        )

    async def load_checkpoint(self, directory: Path) -> None:
        """Continue from a checkpoint."""
        await self._call(
            lambda rank: rank.load_checkpoint.remote(str(directory)), f"reading {directory}"
        )

    async def partition_reports(self) -> list[dict[str, int]]:
        """What each rank holds: the proof that parameters are partitioned."""
        return await self._call(lambda rank: rank.partition_report.remote(), "the partition report")

    async def _free_address(self) -> tuple[str, int]:
        return await wait_for(
            self.handles[0].address.remote(), self.start_deadline_s, "a free port of policy-0"
        )

    async def _call(self, ask: Callable[[TrainHandle], Awaitable[T]], what: str) -> list[T]:
        return await call(self.handles, ask, self.deadline_s, what)


RemoteTrainActor = ray.remote(TrainActor)
