"""Policy actors: one DeepSpeed ZeRO-3 rank each, and the gang of them as the driver sees it.

The same actors train a policy (`head="lm"`) and a reward model (`head="score"`); the objective of
an update is passed with the call.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.cluster.deadlines import wait_for, wait_for_all
from actors.engines.forward_check import ForwardCheck
from actors.groups.weights import Backend, RolloutClient, WeightPublisher
from rl.loss import BatchNorm, Objective
from rl.types import FloatArray, Microbatch, Minibatch, UpdateReport


class PolicyActor:
    """One ZeRO-3 rank; every method is a collective that all ranks are called for together."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        self._rank = rank
        self._num_ranks = num_ranks
        self._engine: Any = None
        self._publisher: WeightPublisher | None = None

    def address(self) -> tuple[str, int]:
        """Where rank 0 listens for the others."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(self, spec: Mapping[str, Any], master_addr: str, master_port: int) -> None:
        """Load the model and join the other ranks; `spec` holds the fields of `TrainSpec`."""
        # The driver never loads DeepSpeed.
        from actors.engines.deepspeed_engine import TrainEngine, TrainSpec  # noqa: PLC0415

        self._engine = TrainEngine(
            TrainSpec(**spec), self._rank, self._num_ranks, master_addr, master_port
        )

    def connect(
        self, client: RolloutClient, backend: Backend, master_addr: str, master_port: int
    ) -> None:
        """Agree with the rollout engines on how weights travel."""
        address = (master_addr, master_port)
        self._publisher = WeightPublisher(self._engine, self._rank, backend, client, address)

    def self_check(self, plain_bytes: int) -> ForwardCheck:
        """Compare every way to read few short samples."""
        return self._engine.self_check(plain_bytes)

    def logprobs(self, microbatches: Sequence[Microbatch]) -> tuple[FloatArray, ...]:
        """Log-probs of the targets of this rank's microbatches."""
        return self._engine.logprobs(microbatches)

    def update(
        self,
        microbatches: Sequence[Microbatch],
        old_logprobs: tuple[FloatArray, ...] | None,
        objective: Objective,
        norm: BatchNorm,
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


class Gang:
    """All ranks of one model; satisfies `rl.interfaces.PolicyFleet`."""

    def __init__(
        self,
        handles: Sequence[Any],
        objective: Objective,
        deadline_s: float,
        start_deadline_s: float,
    ) -> None:
        self.handles = tuple(handles)
        self.num_ranks = len(self.handles)
        self.objective = objective
        self.deadline_s = deadline_s
        self.start_deadline_s = start_deadline_s
        self.packs = True  # until a self-check says otherwise
        self.shares = True

    async def start(self, spec: Mapping[str, Any]) -> None:
        """Load the model on all ranks."""
        address, port = await self._free_address()
        await self._all("start", "the start of the policy ranks", spec, address, port, start=True)

    async def self_check(self, model: str, plain_bytes: int) -> ForwardCheck:
        """Check how samples are read, and pack them only where they do not see each other.

        Raises:
            EngineError: for a model that says other things here than by itself.
        """
        found: list[ForwardCheck] = await self._all("self_check", "the self-check", plain_bytes)
        self.packs, self.shares = found[0].packs, found[0].shares
        found[0].check(model)
        return found[0]

    async def connect(self, rollout: Sequence[Any], tensor_parallel: int, backend: Backend) -> None:
        """Agree with the rollout engines on how weights travel."""
        client = RolloutClient(rollout, tensor_parallel, self.deadline_s)
        address, port = await self._free_address()
        what = "the connection of policy and rollout"
        await self._all("connect", what, client, backend, address, port)

    async def logprobs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        """Log-probs of the targets: by rank, by microbatch."""
        refs = [
            handle.logprobs.remote(microbatches)
            for handle, microbatches in zip(
                self.handles, minibatch.microbatches_by_rank, strict=True
            )
        ]
        return tuple(await wait_for_all(refs, self.deadline_s, "log-probs of the policy"))

    async def update(
        self, minibatch: Minibatch, old_logprobs: tuple[tuple[FloatArray, ...], ...] | None
    ) -> UpdateReport:
        """One optimizer step over all ranks."""
        norm = BatchNorm(minibatch.num_loss_tokens, minibatch.num_samples)
        old = old_logprobs or (None,) * self.num_ranks
        refs = [
            handle.update.remote(microbatches, old[rank], self.objective, norm)
            for rank, (handle, microbatches) in enumerate(
                zip(self.handles, minibatch.microbatches_by_rank, strict=True)
            )
        ]
        reports = await wait_for_all(refs, self.deadline_s, "an optimizer step")
        return reports[0]

    async def publish(self, policy_version: int) -> None:
        """Make every rollout engine serve the current weights."""
        await self._all("publish", f"publication of version {policy_version}", policy_version)

    async def give_way(self) -> None:
        """Leave the devices to the engines, where they are shared."""

    async def save_hf(self, directory: Path) -> None:
        """Write a Hugging Face directory."""
        await self._all("save_hf", f"writing {directory}", str(directory))

    async def save_checkpoint(self, directory: Path) -> None:
        """Write what a resumed run needs."""
        await self._all("save_checkpoint", f"writing {directory}", str(directory))

    async def load_checkpoint(self, directory: Path) -> None:
        """Continue from a checkpoint."""
        await self._all("load_checkpoint", f"reading {directory}", str(directory))

    async def partition_reports(self) -> list[dict[str, int]]:
        """What each rank holds: the proof that parameters are partitioned."""
        return await self._all("partition_report", "the partition report")

    async def _free_address(self) -> tuple[str, int]:
        return await wait_for(
            self.handles[0].address.remote(), self.start_deadline_s, "a free port of policy-0"
        )

    async def _all(self, method: str, what: str, *args: object, start: bool = False) -> list[Any]:
        refs = [getattr(handle, method).remote(*args) for handle in self.handles]
        deadline_s = self.start_deadline_s if start else self.deadline_s
        return await wait_for_all(refs, deadline_s, what)


RemotePolicyActor = ray.remote(PolicyActor)
