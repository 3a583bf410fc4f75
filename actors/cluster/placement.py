"""Placement group: the bundles of all actors of a run, reserved together or not at all.

Before it is asked for, the bundles are laid out on the nodes as Ray reports them: what does not fit
is refused at once, instead of a wait that never ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.cluster.bundles import Bundle, check_fits, seats, together
from actors.cluster.deadlines import wait_for
from conf.schema import PlacementConfig

_NOTICED_S = 60.0  # Ray's health checks take 15 s by default
_LOOK_S = 0.5
_CONNECTS_S = 2.0


def cluster_nodes() -> list[dict[str, float]]:
    """CPUs, GPUs and memory in bytes of every live node of the connected cluster."""
    names = ("CPU", "GPU", "memory")
    return [
        {name: node["Resources"].get(name, 0.0) for name in names}
        for node in ray.nodes()
        if node["Alive"]
    ]


async def _answers(node: Mapping[str, Any]) -> bool:
    """Whether the raylet of a node takes a connection."""
    address = node["NodeManagerAddress"], node["NodeManagerPort"]
    try:
        async with asyncio.timeout(_CONNECTS_S):
            _, writer = await asyncio.open_connection(*address)
    except OSError:  # a TimeoutError is one
        return False
    writer.close()
    return True


class Placement:
    """The reserved placement group; hands each actor its bundle."""

    def __init__(self, group: PlacementGroup, wanted: Sequence[Bundle]) -> None:
        self._group = group
        self._wanted = {
            bundle.actor: (index, bundle)
            for index, seat in enumerate(seats(wanted))
            for bundle in seat
        }

    @classmethod
    async def reserve(cls, cfg: PlacementConfig, wanted: Sequence[Bundle], name: str) -> Placement:
        """Reserve all bundles together."""
        check_fits(wanted, cluster_nodes(), cfg.kind, cfg.strategy)
        group = placement_group(
            [together(seat).resources for seat in seats(wanted)], strategy=cfg.strategy, name=name
        )
        try:
            await wait_for(group.ready(), cfg.ready_timeout_s, f"the reservation of {name}")
        except BaseException:
            remove_placement_group(group)  # else it would take what others give back later
            raise
        return cls(group, wanted)

    def options(self, actor: str, env: Mapping[str, str]) -> dict[str, object]:
        """Options with which the actor of this name is created."""
        index, bundle = self._wanted[actor]
        return {
            "name": actor,
            "num_cpus": bundle.cpus,
            "num_gpus": bundle.gpus,
            "runtime_env": {"env_vars": dict(env)},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                placement_group=self._group, placement_group_bundle_index=index
            ),
        }

    def node_of(self, actor: str) -> str:
        """Address of the node that holds the bundle of this actor."""
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        return addresses.get(self._home(actor), "of unknown address")

    async def settled(self, actors: Sequence[str]) -> None:
        """Return when none of these actors is placed on a node that is gone.

        The loss of an actor is known at once, that of its node only when Ray's health checks have
        failed; until then its bundle stays where it was.
        """
        give_up_s = time.monotonic() + _NOTICED_S
        while time.monotonic() < give_up_s:
            homes = {self._home(actor) for actor in actors}
            nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] in homes]
            if all(await asyncio.gather(*map(_answers, nodes))):
                return
            await asyncio.sleep(_LOOK_S)

    def _home(self, actor: str) -> str | None:
        """Id of the node that holds the bundle of this actor; None while it has none."""
        index, _ = self._wanted[actor]
        return placement_group_table(self._group)["bundles_to_node_id"].get(index)

    def release(self) -> None:
        """Give the bundles back."""
        remove_placement_group(self._group)
