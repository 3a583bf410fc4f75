"""`dry_run=true`: the plan of a run, and what stands in its way; nothing is started."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.cluster.bundles import bundles, check_fits, full_needs, local_gpu_bytes, local_gpus
from actors.cluster.placement import cluster_nodes
from actors.cluster.session import session
from actors.plan.checks.inputs import file_faults, preflight, text_faults
from actors.plan.layout.memory import GIB
from actors.plan.layout.model_shape import shape_of
from actors.plan.layout.plan import Machine, Shapes, make_plan
from actors.plan.layout.plan_text import describe
from conf.errors import EngineError, PlacementError, UserError
from conf.schema import Config
from rl.base.console import Console

_REACH_S = 3.0  # longest wait for the cluster to accept a connection


@dataclass(frozen=True, slots=True)
class Site:
    """The machines of a plan; `lacks` says why they are not the real ones, if they are not."""

    machines: Sequence[Machine]
    lacks: str | None


def dry_run(cfg: Config) -> None:
    """Print the plan.

    On the machines that `placement.node` describes, where the real ones are absent or too small:
    a run is often planned elsewhere. Then missing files are listed, and are no error.

    Raises:
        UserError: when something would not fit, or when files are wrong where the run could start.
    """
    console = Console()
    site = find_site(cfg)
    shapes = model_shapes(cfg)
    plan = make_plan(cfg, site.machines, shapes)
    faults = file_faults(cfg)
    faults = faults or text_faults(cfg, of_hub=False)
    for line in describe(cfg, plan, shapes, 0 if site.lacks else len(faults)):
        console.say(line)
    if site.lacks is not None:
        console.say("\nnot here, so the plan is for the machines that the placement is made for")
        for line in [site.lacks, *faults]:
            console.say(f"  - {line}")
        faults = []
    if plan.misfits or faults:
        raise UserError("\n".join([*plan.misfits, *faults]))
    console.say("\nnothing was started")


def model_shapes(cfg: Config) -> Shapes:
    """Sizes of the models of a run; the loop makes a reward model of the policy's shape."""
    policy = shape_of(cfg.model.path, scores=False)
    if cfg.loop.enabled or cfg.reward.model is None:
        return Shapes(policy=policy, reward=policy if cfg.loop.enabled else None)
    return Shapes(policy=policy, reward=shape_of(cfg.reward.model, scores=True))


def find_site(cfg: Config) -> Site:
    """The nodes of the cluster, or this machine; the assumed ones where those cannot hold it."""
    address = cfg.ray.cluster
    try:
        if address:
            nodes = _nodes_of_cluster(cfg, address)
            wanted = bundles(cfg, full_needs(cfg))
            check_fits(wanted, nodes, cfg.placement.kind, cfg.placement.strategy)
            return Site([_machine(cfg, node) for node in nodes], None)
        preflight(cfg)
    except (PlacementError, EngineError) as error:
        return Site([assumed_machine(cfg)] * cfg.placement.num_nodes, str(error))
    return Site([_this_machine(cfg)], None)


def assumed_machine(cfg: Config) -> Machine:
    """One machine that the placement is made for."""
    node = cfg.placement.node
    return Machine(
        cpus=node.cpus,
        gpus=node.gpus,
        gpu_bytes=int(node.gpu_memory_gib * GIB) if node.gpus else None,
        host_bytes=int(node.memory_gib * GIB),
        assumed="all",
    )


def _this_machine(cfg: Config) -> Machine:
    num_gpus, gpu_bytes = local_gpus(), local_gpu_bytes()
    assumed = num_gpus and gpu_bytes is None
    return Machine(
        cpus=float(os.cpu_count() or 1),
        gpus=num_gpus,
        gpu_bytes=assumed_machine(cfg).gpu_bytes if assumed else gpu_bytes,
        host_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        assumed="memory" if assumed else "nothing",
    )


def _machine(cfg: Config, node: Mapping[str, float]) -> Machine:
    """A node of a cluster, which does not say how much memory its GPUs have."""
    return Machine(
        cpus=node["CPU"],
        gpus=int(node["GPU"]),
        gpu_bytes=int(cfg.placement.node.gpu_memory_gib * GIB) if node["GPU"] else None,
        host_bytes=int(node["memory"]),
        assumed="memory" if node["GPU"] else "nothing",
    )


def _nodes_of_cluster(cfg: Config, address: str) -> list[dict[str, float]]:
    """CPUs, GPUs and memory of every node; EngineError when nobody answers."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # a refusal is known at once, where Ray would try for a minute
        try:
            socket.create_connection((host, int(port)), timeout=_REACH_S).close()
        except OSError as error:
            raise EngineError(f"the cluster at {address} does not answer: {error}") from error
    with session(cfg, f"{cfg.experiment}-{cfg.name}-dry-run"):
        return cluster_nodes()
