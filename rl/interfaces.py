"""What the step needs of the three groups of actors, as protocols.

The Ray fleets of `actors/` and the in-process fakes of the unit tests satisfy the same contracts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from rl.loss import Objective
from rl.packing import Packing
from rl.parcels import Minibatch
from rl.types import Ask, FloatArray, JudgedGroup, PromptGroup, UpdateReport


class RolloutFleet(Protocol):
    """Engines that sample completions."""

    def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        """Yield each group the moment its last completion is done, in any order."""
        ...


class RewardFleet(Protocol):
    """Whatever judges answers: a sharded reward model, or execution."""

    async def judge(
        self, groups: Sequence[PromptGroup], earlier: Sequence[JudgedGroup] = ()
    ) -> tuple[JudgedGroup, ...]:
        """Extract, gate and score the groups of one problem; `earlier` ones were judged before."""
        ...


class PolicyFleet(Protocol):
    """The ranks that train the policy."""

    @property
    def packing(self) -> Packing:
        """How samples become microbatches of these ranks."""
        ...

    async def outputs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        """Log-probs of the labels under the current policy: by rank, by microbatch, [M]."""
        ...

    async def update(
        self,
        minibatch: Minibatch,
        old_logprobs: tuple[tuple[FloatArray, ...], ...] | None,
        objective: Objective,
    ) -> UpdateReport:
        """One optimizer step. `old_logprobs` None: the policy has not moved since the rollout."""
        ...

    async def publish(self, policy_version: int) -> None:
        """Make every rollout engine serve the current weights as `policy_version`."""
        ...


class Learner(Protocol):
    """Whatever holds the ranks that train: a run, or a replay of one."""

    @property
    def policy(self) -> PolicyFleet:
        """The ranks that train."""
        ...


class Fleet(Learner, Protocol):
    """All actors of one run."""

    @property
    def rollout(self) -> RolloutFleet:
        """Engines that sample completions."""
        ...

    @property
    def reward(self) -> RewardFleet:
        """Whatever judges code."""
        ...
