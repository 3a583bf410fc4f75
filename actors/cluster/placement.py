"""Placement group: the bundles of all actors of a run, reserved together or not at all.

Before it is asked for, the bundles are laid out on the nodes as Ray reports them: what does not fit
is refused at once, instead of a wait that never ends.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from actors.cluster.bundles import Bundle, check_fits, seats, together
from actors.cluster.cluster import has_lost_gcs, is_own
from actors.cluster.deadlines import wait_for
from actors.cluster.processes import MARK, end_marked
from actors.cluster.signals import is_stopping
from conf.errors import DeadlineError, EngineError, LostActorError, in_one_line
from conf.schema import PlacementConfig

logger = logging.getLogger(__name__)

_NOTICED_S = 60.0  # Ray's health checks take 15 s by default
_LOOK_S = 0.5
_CONNECTS_S = 2.0
_GRACE_S = 6.0  # Ray's kill follows with SIGKILL after 5 s, and reports one that was not its own
_ENDS_S = 5.0  # for the kernel to end a process
_ENDED_S = 30.0  # for a node to say so; a worker that has to start first takes seconds


def cluster_nodes() -> list[dict[str, float]]:
    """CPUs, GPUs and memory in bytes of every live node of the connected cluster."""
    names = ("CPU", "GPU", "memory")
    return [
        {name: node["Resources"].get(name, 0.0) for name in names}
        for node in ray.nodes()
        if node["Alive"]
    ]


_end_marked = ray.remote(num_cpus=0, max_retries=0)(end_marked)


def _nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster; raises LostActorError where nobody knows them any more."""
    if has_lost_gcs():
        raise LostActorError("Ray's GCS has ended, and without it no other actor can be started")
    return ray.nodes()


def _give_back(group: PlacementGroup) -> None:
    """Give bundles back; where Ray does not answer, they go with the connection to it.

    So they do with a cluster of our own: what ends this process may be ending that one as well.
    """
    if is_own() and (is_stopping() or has_lost_gcs()):
        return
    try:
        remove_placement_group(group)
    except RayError as error:
        logger.warning("Ray took no bundles back: %s", in_one_line(error))


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


async def _emptied(node: str, marks: Sequence[str]) -> None:
    """Return when a node has no process with one of these marks, or does not say so in time."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    end = _end_marked.options(scheduling_strategy=there).remote(marks, _GRACE_S, _ENDS_S)
    try:
        left = await wait_for(end, _ENDED_S, "the end of a lost actor")
    except (EngineError, DeadlineError) as error:
        logger.warning("%s", error)
        return
    if left:
        logger.warning("processes of %s do not end: %s", ", ".join(marks), left)


class Placement:
    """The reserved placement group; hands each actor its bundle."""

    def __init__(self, group: PlacementGroup, wanted: Sequence[Bundle]) -> None:
        self._group = group
        self._wanted = {
            bundle.actor: (index, bundle)
            for index, seat in enumerate(seats(wanted))
            for bundle in seat
        }
        self._marks: dict[str, str] = {}  # of the actor that was made last, by name

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
            _give_back(group)  # else it would take what others give back later
            raise
        return cls(group, wanted)

    def options(self, actor: str, env: Mapping[str, str]) -> dict[str, object]:
        """Options with which the next actor of this name is created."""
        index, bundle = self._wanted[actor]
        mark = self._marks[actor] = f"{actor}-{secrets.token_hex(8)}"
        return {
            "name": actor,
            "num_cpus": bundle.cpus,
            "num_gpus": bundle.gpus,
            "runtime_env": {"env_vars": {**env, MARK: mark}},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                placement_group=self._group, placement_group_bundle_index=index
            ),
        }

    def node_of(self, actor: str) -> str:
        """Address of the node that holds the bundle of this actor.

        Raises:
            LostActorError: where a cluster of our own has lost its GCS.
        """
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in _nodes()}
        return addresses.get(self._home(actor), "of unknown address")

    async def settled(self, actors: Sequence[str]) -> None:
        """Return when others can be started in the places of these actors.

        None lies on a node that is gone. The loss of an actor is known at once, that of its node
        only when Ray's health checks have failed; until then its bundle stays where it was. And no
        process of theirs is left, which would keep the memory that the next one needs.

        Raises:
            LostActorError: where a cluster of our own has lost its GCS.
        """
        give_up_s = time.monotonic() + _NOTICED_S
        while time.monotonic() < give_up_s:
            alive = [node for node in _nodes() if node["Alive"]]
            homes = {self._home(actor) for actor in actors}
            nodes = [node for node in alive if node["NodeID"] in homes]
            if all(await asyncio.gather(*map(_answers, nodes))):
                marks = [self._marks[actor] for actor in actors if actor in self._marks]
                await asyncio.gather(*(_emptied(node["NodeID"], marks) for node in nodes))
                return
            await asyncio.sleep(_LOOK_S)

    def _home(self, actor: str) -> str | None:
        """Id of the node that holds the bundle of this actor; None while it has none."""
        index, _ = self._wanted[actor]
        return placement_group_table(self._group)["bundles_to_node_id"].get(index)

    def release(self) -> None:
        """Give the bundles back."""
        _give_back(self._group)
