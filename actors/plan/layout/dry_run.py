"""`dry_run=true`: the plan of a run, and what stands in its way; nothing is started."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from actors.cluster.bundles import (
    Needs,
    bundles,
    check_fits,
    local_gpu_bytes,
    local_gpus,
    run_needs,
)
from actors.cluster.placement import cluster_nodes
from actors.cluster.session import session
from actors.plan.checks.inputs import content_faults, file_faults, text_faults
from actors.plan.checks.preflight import host_bytes, preflight, thread_faults
from actors.plan.layout.memory import GIB
from actors.plan.layout.model_shape import ModelShape, shape_of
from actors.plan.layout.plan import Machine, Shapes, make_plan
from actors.plan.layout.plan_text import describe, describe_ranks
from conf.errors import EngineError, PlacementError, UserError
from conf.schema import Config, NodeConfig, RayConfig
from rl.base.console import Console
from rl.run.start.claim import name_to_take


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
    cfg = replace(cfg, name=name_to_take(cfg))
    site = find_site(cfg, run_needs(cfg))
    shapes = model_shapes(cfg.model.path, cfg.reward.model, made=cfg.loop.enabled)
    plan = make_plan(cfg, site.machines, shapes)
    threads = thread_faults(cfg, run_needs(cfg), max(m.cpus for m in site.machines))
    faults = file_faults(cfg) or content_faults(cfg)
    faults = faults or text_faults(cfg, of_hub=False)
    for line in describe(cfg, plan, shapes, 0 if site.lacks else len(faults)):
        console.say(line)
    if site.lacks is not None:
        said = [line for line in site.lacks.splitlines() if line not in threads]  # wrong there too
        console.say("\nnot here, so the plan is for the machines that the placement is made for")
        for line in [*said, *faults]:
            console.say(f"  - {line}")
        faults = []
    if plan.misfits or threads or faults:
        raise UserError("\n".join([*plan.misfits, *threads, *faults]))
    console.say("\nnothing was started")


def dry_run_training(cfg: Config, model: str, shape: ModelShape | None) -> None:
    """Print the plan of a training of a reward model, whose actors are ranks alone.

    Raises:
        UserError: when something would not fit.
    """
    console = Console()
    needs = Needs(policy=cfg.policy.ranks)
    site = find_site(cfg, needs)
    shapes = Shapes(policy=shape, reward=None)
    plan = make_plan(cfg, site.machines, shapes, bundles(cfg.placement, needs))
    threads = thread_faults(cfg, needs, max(m.cpus for m in site.machines))
    for line in describe_ranks(cfg, plan, model):
        console.say(line)
    if site.lacks is not None:
        console.say(f"\nnot here, so the plan is for an assumed machine\n  - {site.lacks}")
    if plan.misfits or threads:
        raise UserError("\n".join([*plan.misfits, *threads]))
    console.say("\nnothing was started")


def model_shapes(model: str, reward_model: str | None, *, made: bool) -> Shapes:
    """Sizes of the models of a run; `made` by the loop, the reward model has the policy's shape."""
    policy = shape_of(model, scores=False)
    if made or reward_model is None:
        return Shapes(policy=policy, reward=policy if made else None)
    return Shapes(policy=policy, reward=shape_of(reward_model, scores=True))


def find_site(cfg: Config, needs: Needs) -> Site:
    """The nodes of the cluster, or this machine; else assumed ones where those are too small."""
    address, place = cfg.ray.cluster, cfg.placement
    try:
        if address:
            namespace = f"{cfg.experiment}-{cfg.name}-dry-run"
            nodes = _nodes_of_cluster(cfg.ray, address, namespace)
            check_fits(bundles(place, needs), nodes, place.kind, place.strategy)
            return Site([_machine(place.node, node) for node in nodes], None)
        preflight(cfg, needs)
    except (PlacementError, EngineError) as error:
        return Site([assumed_machine(place.node)] * place.num_nodes, str(error))
    return Site([_this_machine(place.node)], None)


def assumed_machine(node: NodeConfig) -> Machine:
    """One machine that the placement is made for."""
    return Machine(
        cpus=node.cpus,
        gpus=node.gpus,
        gpu_bytes=int(node.gpu_memory_gib * GIB) if node.gpus else None,
        host_bytes=int(node.memory_gib * GIB),
        assumed="all",
    )


def _this_machine(like: NodeConfig) -> Machine:
    num_gpus, gpu_bytes = local_gpus(), local_gpu_bytes()
    assumed = num_gpus and gpu_bytes is None
    return Machine(
        cpus=float(os.cpu_count() or 1),
        gpus=num_gpus,
        gpu_bytes=assumed_machine(like).gpu_bytes if assumed else gpu_bytes,
        host_bytes=host_bytes(),
        assumed="memory" if assumed else "nothing",
    )


def _machine(like: NodeConfig, node: Mapping[str, float]) -> Machine:
    """A node of a cluster, which does not say how much memory its GPUs have."""
    return Machine(
        cpus=node["CPU"],
        gpus=int(node["GPU"]),
        gpu_bytes=int(like.gpu_memory_gib * GIB) if node["GPU"] else None,
        host_bytes=int(node["memory"]),
        assumed="memory" if node["GPU"] else "nothing",
    )


def _nodes_of_cluster(ray: RayConfig, address: str, namespace: str) -> list[dict[str, float]]:
    """CPUs, GPUs and memory of every node; PlacementError when nobody answers."""
    with session(ray, namespace):
        return cluster_nodes()
