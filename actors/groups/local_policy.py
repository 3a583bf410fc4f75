"""Policy of one rank in this process, where a debugger can stop it; it publishes to no engine."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from actors.engines.forward_check import ForwardCheck
from actors.engines.specs import TrainSpec
from actors.groups.train_actor import TrainActor
from rl.loss import LossDenominators, Objective
from rl.packing import Packing
from rl.parcels import Minibatch
from rl.types import FloatArray, UpdateReport


class LocalPolicy:
    """The same rank as behind Ray, called and not sent to; satisfies `rl.interfaces.PolicyFleet`.

    `environment` is that of a rank: this process takes it over.
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
        if self.packing.share_prefix == "auto":
            self.packing = replace(self.packing, share_prefix="off")

    async def self_check(self, model: str, plain_bytes: int) -> ForwardCheck:
        """Check how samples are read, as `TrainGroup.self_check` does; raises EngineError."""
        found = self._rank.self_check(plain_bytes)
        share_prefix = self.packing.share_prefix if found.shares else "off"
        self.packing = replace(self.packing, packs=found.packs, share_prefix=share_prefix)
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
