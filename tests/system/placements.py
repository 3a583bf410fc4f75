"""Placements on a cluster of several local Ray nodes with GPUs that do not exist; prints JSON.

`python -m tests.system.placements` starts the nodes, reserves the actors of each case as a run
does, and says of each actor the node and the devices that it sees. No engine is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.exceptions import RayActorError

from actors.cluster import cluster
from actors.cluster.bundles import run_bundles
from actors.cluster.placement import Placement
from conf.errors import DeadlineError, LostActorError, PlacementError
from conf.schema import Config, SupervisionConfig
from tests.settings import run_config

NODES, GPUS, CPUS = 3, 4, 16
_QWEN = "experiment=qwen3_8b_codescaler"
CASES: dict[str, list[str]] = {
    "one_node": [_QWEN, "rollout.engines=1", "reward.shards=1", "policy.ranks=2"],
    "multi_node": [
        *("experiment=qwen3_14b_codescaler", "rollout.engines=3", "reward.shards=1"),
        "policy.ranks=4",
    ],
    "colocated": [
        *("experiment=qwen3_8b_colocated", "rollout.engines=4", "reward.shards=4"),
        *("policy.ranks=4", "placement.rollout.cpus=1", "placement.reward.cpus=1"),
        "placement.policy.cpus=1",
    ],
    "tensor_parallel": [
        *("experiment=qwen3_14b_codescaler", "rollout.engines=2", "rollout.tensor_parallel=2"),
        *("placement.rollout.gpus=2", "reward.shards=1", "reward.tensor_parallel=4"),
        *("placement.reward.gpus=4", "policy.ranks=2"),
    ],
    "spread": [
        *("experiment=qwen3_14b_codescaler", "placement.num_nodes=3", "placement.strategy=SPREAD"),
        *("rollout.engines=1", "reward.shards=1", "policy.ranks=1"),
    ],
    "apart": [
        *("experiment=qwen3_14b_codescaler", "placement.num_nodes=3"),
        *("placement.strategy=STRICT_SPREAD", "rollout.engines=1", "reward.shards=1"),
        "policy.ranks=1",
    ],
    "too_large": [_QWEN, "rollout.engines=3", "reward.shards=1", "policy.ranks=2"],
}


@ray.remote
class Witness:
    """An actor in the place of an engine or a rank."""

    def seen(self) -> tuple[str, str]:
        """Its node, and the devices that libraries see."""
        return ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES", "")


async def _seen(cfg: Config, name: str) -> dict[str, Any]:
    """Node and devices of each actor of a run, by name."""
    wanted = run_bundles(cfg)
    placement = await Placement.reserve(cfg.placement, wanted, name)
    try:
        actors = {b.actor: _witness(placement, b.actor) for b in wanted}
        found = _ask(actors)
        for actor in actors.values():
            ray.kill(actor)
        return found
    finally:
        placement.release()


def _ask(actors: Mapping[str, Any]) -> dict[str, Any]:
    found = ray.get([actor.seen.remote() for actor in actors.values()], timeout=90)
    return dict(zip(actors, found, strict=True))


async def _gang(cfg: Config) -> dict[str, Any]:
    """What a second run gets beside a first that leaves room for some of its actors only."""
    placement = await Placement.reserve(cfg.placement, run_bundles(cfg), "first")
    few = ["rollout.engines=2", "reward.shards=1", "policy.ranks=2"]
    late = run_config([*CASES["apart"][:1], *few])
    impatient = replace(late.placement, ready_timeout_s=2)
    free = ray.available_resources().get("GPU", 0.0)
    try:
        await Placement.reserve(impatient, run_bundles(late), "second")
        answer = "reserved"
    except DeadlineError as error:
        answer = str(error)
    left = ray.available_resources().get("GPU", 0.0)
    placement.release()
    await asyncio.sleep(2)
    after = ray.available_resources().get("GPU", 0.0)
    counts = {"wanted": len(run_bundles(late)), "free": free, "left": left, "after": after}
    return {"answer": answer, **counts}


async def _node_loss(cfg: Config, nodes: Cluster) -> dict[str, Any]:
    """Where the actors of a run are before and after one of its nodes is gone; one is to spare."""
    wanted = run_bundles(cfg)
    placement = await Placement.reserve(cfg.placement, wanted, "node_loss")
    actors = {b.actor: _witness(placement, b.actor) for b in wanted}
    before = _ask(actors)
    busy = {node for node, _ in before.values()}
    gone = next(n for n in nodes.worker_nodes if n.node_id in busy)
    nodes.remove_node(gone, allow_graceful=False)
    lost = [name for name, (node, _) in before.items() if node == gone.node_id]
    survivors = _ask({name: actor for name, actor in actors.items() if name not in lost})
    again = {name: await _again(placement, name, cfg.supervision) for name in lost}
    placement.release()
    return {"before": before, "survivors": survivors, "again": again}


async def _again(placement: Placement, actor: str, cfg: SupervisionConfig) -> Any:
    """What another actor in a bundle sees, which Ray gives a new node; tried as a seat tries it."""
    for number in range(cfg.restarts):
        with contextlib.suppress(RayActorError):  # Ray does not know yet that the node is gone
            return ray.get(_witness(placement, actor).seen.remote(), timeout=90)
        await asyncio.sleep(cfg.backoff_s * 2**number)
    raise LostActorError(f"{actor} found no node in {cfg.restarts} restarts")


def _witness(placement: Placement, actor: str) -> Any:
    options = placement.options(actor, {}) | {"name": None}
    return Witness.options(**options).remote()  # pyright: ignore[reportAttributeAccessIssue]


def main(names: Sequence[str]) -> None:
    """Print what every actor of the named cases sees."""
    sizes: dict[str, Any] = {"num_cpus": CPUS, "num_gpus": GPUS, "object_store_memory": 80 * 2**20}
    where: dict[str, Any] = {"node_ip_address": "127.0.0.1"}
    cluster._stay_on_loopback()  # else Ray takes the address of an interface for the one it joins
    nodes = Cluster(
        initialize_head=True, head_node_args={**sizes, **where, "include_dashboard": False}
    )
    for _ in range(NODES - 1):
        nodes.add_node(**sizes, **where)
    ray.init(address=nodes.address, log_to_driver=False)
    found: dict[str, Any] = {}
    try:
        for name in names:
            try:
                found[name] = asyncio.run(_seen(run_config(CASES[name]), name))
            except PlacementError as error:
                found[name] = str(error)
        found["gang"] = asyncio.run(_gang(run_config(CASES["multi_node"])))
        found["node_loss"] = asyncio.run(_node_loss(run_config(CASES["multi_node"]), nodes))
    finally:
        ray.shutdown()
        nodes.shutdown()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
