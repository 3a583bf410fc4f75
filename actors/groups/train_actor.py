"""Training actor: one DeepSpeed ZeRO-3 rank as a Ray process, or in the process of the driver.

`actors.groups.trainer` is all of them as the driver sees them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from actors.cluster.shared_files import sees
from actors.engines.forward_check import ForwardCheck
from actors.engines.profiling import StepProfiler
from actors.engines.specs import TrainSpec
from actors.groups.handles import WeightRoute
from actors.groups.weights import WeightPublisher
from rl.loss import LossDenominators, Objective
from rl.packing import Packing
from rl.parcels import Minibatch, Parcel
from rl.types import FloatArray, UpdateReport

if TYPE_CHECKING:
    from actors.engines.deepspeed_engine import TrainEngine


class TrainActor:
    """One ZeRO-3 rank; every method is a collective that all ranks are called for together."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        self._rank = rank
        self._num_ranks = num_ranks
        self._started: TrainEngine | None = None
        self._publisher: WeightPublisher | None = None
        self._profiler = StepProfiler((), Path(), rank)

    @property
    def _engine(self) -> TrainEngine:
        if self._started is None:
            raise RuntimeError("start() comes first")
        return self._started

    def address(self) -> tuple[str, int]:
        """Where rank 0 can listen for the others."""
        here = ray.util.get_node_ip_address()
        with socket.create_server((here, 0)) as probe:
            return here, probe.getsockname()[1]

    def start(self, spec: TrainSpec, master_addr: str, master_port: int) -> None:
        """Load the model and join the other ranks."""
        from actors.engines.deepspeed_engine import TrainEngine  # noqa: PLC0415 - never in the driver

        self._started = TrainEngine(spec, self._rank, self._num_ranks, master_addr, master_port)
        steps = spec.policy.profile_steps or ()
        self._profiler = StepProfiler(steps, Path(spec.profile_dir), self._rank)

    def connect(self, route: WeightRoute, master_addr: str, master_port: int) -> None:
        """Agree with the rollout engines on how weights travel."""
        self._publisher = WeightPublisher(
            self._engine, self._rank, route, (master_addr, master_port)
        )

    def self_check(self, plain_bytes: int) -> ForwardCheck:
        """Compare every way to read few short samples."""
        return self._engine.self_check(plain_bytes)

    def outputs(self, parcels: Sequence[Parcel]) -> tuple[FloatArray, ...]:
        """What the head says of the labels [M] of each microbatch: log-probs, or scores."""
        self._profiler.begin()
        return self._engine.outputs([parcel.microbatch() for parcel in parcels])

    def update(
        self,
        parcels: Sequence[Parcel],
        old_logprobs: tuple[FloatArray, ...] | None,
        objective: Objective,
        norm: LossDenominators,
    ) -> UpdateReport:
        """One optimizer step."""
        self._profiler.begin()
        microbatches = [parcel.microbatch() for parcel in parcels]
        return self._engine.update(microbatches, old_logprobs, objective, norm)

    def publish(self, policy_version: int) -> dict[str, str]:
        """Send the weights to the rollout engines; those that were lost on the way, and why."""
        if self._publisher is None:
            raise RuntimeError("connect() comes before publish()")
        lost = self._publisher.publish(policy_version)
        self._profiler.end(policy_version)
        return lost

    def give_way(self) -> None:
        """Leave a device that is shared to the others, but for what the rank holds all the time."""
        self._engine.give_way()

    def save_hf(self, directory: str) -> None:
        """Write a Hugging Face directory."""
        self._engine.save_hf(Path(directory))

    def save_adapter(self, directory: str) -> None:
        """Write the adapters alone."""
        self._engine.save_adapter(Path(directory))

    def save_checkpoint(self, directory: str) -> None:
        """Write what a resumed run needs."""
        self._engine.save_checkpoint(Path(directory))

    def load_checkpoint(self, directory: str) -> None:
        """Continue from a checkpoint."""
        self._engine.load_checkpoint(Path(directory))

    def sees(self, path: str, text: str) -> bool:
        """Whether this rank finds a file with this text."""
        return sees(path, text)

    def partition_report(self) -> dict[str, int]:
        """How many parameters this rank holds, of how many."""
        return self._engine.partition_report()


RemoteTrainActor = ray.remote(TrainActor)


class LocalPolicy:
    """One rank in this process, where a debugger can stop it.

    It satisfies `rl.interfaces.PolicyFleet`, and publishes to no engine. `environment` is that of a
    rank: this process takes it over.
    """

    def __init__(self, spec: TrainSpec, packing: Packing, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self.packing = packing
        self._rank = TrainActor(0, 1)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self._rank.start(spec, "127.0.0.1", port)

    def unchecked(self) -> None:
        """Share nothing by `auto`, as `TrainGroup.unchecked` does."""
        self.packing = self.packing.unchecked()

    async def self_check(self, model: str, plain_bytes: int) -> ForwardCheck:
        """Check how samples are read, as `TrainGroup.self_check` does; raises EngineError."""
        found = self._rank.self_check(plain_bytes)
        self.packing = self.packing.checked(packs=found.packs, shares=found.shares)
        found.check(model)
        return found

    async def outputs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        """Log-probs of the labels."""
        return (self._rank.outputs(minibatch.parcels_by_rank[0]),)

    async def update(
        self,
        minibatch: Minibatch,
        old_logprobs: tuple[tuple[FloatArray, ...], ...] | None,
        objective: Objective,
    ) -> UpdateReport:
        """One optimizer step."""
        norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
        old = None if old_logprobs is None else old_logprobs[0]
        return self._rank.update(minibatch.parcels_by_rank[0], old, objective, norm)

    async def publish(self, policy_version: int) -> None:
        """Send nothing: there is no engine."""

    async def save_hf(self, directory: Path) -> None:
        """Write a Hugging Face directory."""
        self._rank.save_hf(str(directory.absolute()))

    async def save_adapter(self, directory: Path) -> None:
        """Write the adapters alone, as peft does."""
        self._rank.save_adapter(str(directory.absolute()))
