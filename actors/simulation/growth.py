"""What the driver costs as a step grows: real groups and real Ray, actors that answer at once.

Everything that the driver does is done: prompts are dealt, completions are fetched and unpickled,
bundles are sent to the shards, advantages, packing and the minibatch on its way to the ranks. What
the engines would compute is left out, so that the driver is all that is measured.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, cast

import psutil
import ray

from actors.cluster.session import session
from actors.groups.reward import RewardGroup
from actors.groups.rollout import RolloutEngines
from actors.groups.supervision import Seat, Supervisor
from actors.groups.trainer import TrainGroup
from actors.simulation.silent import (
    PROMPT_TOKENS,
    SimulatedEngine,
    SimulatedRank,
    SimulatedShard,
)
from actors.stages.recipes import make_recipe
from conf.schema import Config
from rl.base.console import Console
from rl.packing import Packing
from rl.step import collect, learn
from rl.types import Message, Prompt, SamplingConfig

_GROUP_SIZE = 16
_RANKS = 4
_WAIT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many actors answer, and how long the completions are."""

    engines: int = 4
    shards: int = 2
    tokens: int = 16_384  # of a completion


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverCost:
    """What one step took of the driver, and how it dealt its work."""

    cpu_s: float
    wall_s: float
    memory_bytes: int  # of the process at the end of the step
    by_engine: tuple[int, ...]  # completions of each
    by_shard: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The costs of steps by their number of completions, and what the actors take."""

    costs: Mapping[int, Sequence[DriverCost]]
    start_s: float  # of all actors
    actor_bytes: tuple[int, ...]  # memory of its own of each engine's and shard's process


class _Policy(TrainGroup):
    """The ranks, without weights that could be published."""

    async def publish(self, policy_version: int) -> None:
        """Nothing to publish."""


@dataclass(frozen=True, slots=True)
class _Fleet:
    rollout: RolloutEngines
    reward: RewardGroup
    policy: _Policy


def _seats(group: str, num: int, create: Callable[[str], Any]) -> list[Seat[Any]]:
    names = [f"{group}-{number}" for number in range(num)]
    return [Seat(name, partial(create, name)) for name in names]


class _Here:
    """The node of all simulated actors."""

    def node_of(self, actor: str) -> str:
        del actor
        return "here"

    async def settled(self, actors: Sequence[str]) -> None:
        del actors


def _fleet(cfg: Config, scale: Scale) -> _Fleet:
    supervisor = Supervisor(cfg.supervision, _WAIT_S, _Here(), Console())
    kinds = (SimulatedEngine, SimulatedShard, SimulatedRank)
    engine, shard, rank = (cast("Any", ray.remote(kind)).options(num_cpus=0) for kind in kinds)
    names = [f"policy-{number}" for number in range(_RANKS)]
    engines = _seats("rollout", scale.engines, lambda name: engine.remote(name, scale.tokens))
    return _Fleet(
        RolloutEngines(engines, _WAIT_S, supervisor),
        RewardGroup(_seats("reward", scale.shards, shard.remote), _WAIT_S, supervisor),
        _Policy(
            Seat("policy", lambda: tuple(rank.remote() for _ in names), actors=names),
            Packing(num_ranks=_RANKS, microbatch_tokens=scale.tokens + PROMPT_TOKENS),
            _WAIT_S,
            supervisor,
        ),
    )


def driver_costs(cfg: Config, num_repeats: int, sizes: Sequence[int], scale: Scale) -> Found:
    """Costs of steps of so many completions; the first step of each size warms up."""
    with session(cfg.ray, "driver-costs") as run:
        return run(_measure(cfg, num_repeats, sizes, scale))


async def _measure(cfg: Config, num_repeats: int, sizes: Sequence[int], scale: Scale) -> Found:
    fleet = _fleet(cfg, scale)
    started_s = time.perf_counter()
    await fleet.rollout.start()
    await fleet.reward.start()
    start_s = time.perf_counter() - started_s
    costs: dict[int, list[DriverCost]] = {}
    steps = count(1)
    for size in sizes:
        found = [await _step(cfg, fleet, next(steps), size, scale) for _ in range(num_repeats + 1)]
        costs[size] = found[1:]
    seats = [*fleet.rollout.seats, *fleet.reward.seats]
    sizes_A = [await seat.handle.memory_bytes.remote() for seat in seats]
    return Found(costs=costs, start_s=start_s, actor_bytes=tuple(sizes_A))


async def _step(
    cfg: Config, fleet: _Fleet, step: int, num_completions: int, scale: Scale
) -> DriverCost:
    sampling = SamplingConfig(group_size=_GROUP_SIZE, max_tokens=scale.tokens)
    recipe = make_recipe(cfg, sampling)
    problems = [
        Prompt(id=f"p{number}", messages=(Message("user", f"problem {number}"),))
        for number in range(num_completions // _GROUP_SIZE)
    ]
    this = psutil.Process()
    before, started_s = this.cpu_times(), time.perf_counter()
    batch = await collect(step, fleet, recipe, problems, recipe.start())
    await learn(step, batch, fleet, on_policy=True)
    after = this.cpu_times()
    return DriverCost(
        cpu_s=after.user + after.system - before.user - before.system,
        wall_s=time.perf_counter() - started_s,
        memory_bytes=this.memory_info().rss,
        by_engine=_dealt([judged.group.engine for judged in batch.groups_P], fleet.rollout.seats),
        by_shard=_dealt([judged.actor for judged in batch.groups_P], fleet.reward.seats),
    )


def _dealt(actors: Sequence[str], seats: Sequence[Seat[Any]]) -> tuple[int, ...]:
    """Completions that each actor was dealt, idle ones included."""
    groups = Counter(actors)
    return tuple(_GROUP_SIZE * groups[seat.name] for seat in seats)
