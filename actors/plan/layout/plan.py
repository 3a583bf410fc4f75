"""Plan of a run on given machines: which actor sits where, what memory it takes, what does not fit.

Pure: machines and model sizes come in, a plan goes out. `actors.plan.layout.plan_text` draws it,
`actors.plan.layout.dry_run` finds out about machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from actors.cluster.bundles import Bundle, Layout, lay_out, run_bundles
from actors.plan.layout.memory import GIB, NO_MODEL, Footprint, engine_footprint, policy_footprint
from actors.plan.layout.model_shape import ModelShape
from conf.recipes import is_anchored
from conf.schema import Config, PlacementConfig, PolicyConfig, Strategy

GROUPS = ("rollout", "reward", "policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One node of a cluster, real or assumed. Memory in bytes."""

    cpus: float
    gpus: int
    gpu_bytes: int | None  # of one GPU; None without any
    host_bytes: int
    assumed: Literal["all", "memory", "nothing"]  # what of it nobody has asked

    @property
    def resources(self) -> dict[str, float]:
        """As Ray writes it."""
        return {"CPU": self.cpus, "GPU": float(self.gpus)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Sizes of the models of a run; None where nothing tells it."""

    policy: ModelShape | None
    reward: ModelShape | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, or the host memory of a node, and what lies on it. Memory in bytes."""

    node: int
    gpu: int | None  # None: the host
    actors: tuple[str, ...]
    needed: int
    capacity: int
    complete: bool  # False: the size of some model is not known, and more is needed

    @property
    def name(self) -> str:
        """As the picture has it."""
        return "host" if self.gpu is None else f"gpu {self.gpu}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run on machines."""

    machines: tuple[Machine, ...]
    bundles: tuple[Bundle, ...]
    layout: Layout
    footprints: Mapping[str, Footprint | None]  # by group; None: unknown size
    devices: tuple[Device, ...]
    misfits: tuple[str, ...]  # what would not fit, each with the key to change


def make_plan(
    cfg: Config, machines: Sequence[Machine], shapes: Shapes, wanted: Sequence[Bundle] | None = None
) -> Plan:
    """Lay the actors of a run, or those that are `wanted`, out on machines; add up each device."""
    place = cfg.placement
    wanted = run_bundles(cfg) if wanted is None else wanted
    layout = lay_out(wanted, [m.resources for m in machines], place.strategy)
    gpu_bytes = min((m.gpu_bytes for m in machines if m.gpu_bytes), default=None)
    footprints = footprints_of(cfg, shapes, gpu_bytes)
    devices = [
        device
        for index, machine in enumerate(machines)
        for device in _devices(index, machine, layout, footprints, on_gpus=place.device == "cuda")
    ]
    misfits = _homeless(place.strategy, layout, machines) + _starved(place, footprints)
    misfits += [
        _overfull(device, footprints, cfg.policy, on_cpu=place.device == "cpu")
        for device in _too_small(devices)
    ]
    return Plan(
        machines=tuple(machines),
        bundles=tuple(wanted),
        layout=layout,
        footprints=footprints,
        devices=tuple(devices),
        misfits=tuple(misfits),
    )


def group_of(actor: str) -> str:
    """The group of an actor's name, such as `rollout-0`."""
    return actor.rpartition("-")[0]


def footprints_of(
    cfg: Config, shapes: Shapes, gpu_bytes: int | None
) -> dict[str, Footprint | None]:
    """Memory of one actor of each group; None where the size of its model is unknown."""
    on_gpu = cfg.placement.device == "cuda"
    device_bytes = gpu_bytes if on_gpu else None
    found: dict[str, Footprint | None] = dict.fromkeys(GROUPS)
    if shapes.policy is not None:
        found["policy"] = policy_footprint(
            shapes.policy,
            cfg.policy,
            dtype=cfg.model.dtype,
            on_gpu=on_gpu,
            reference=cfg.algorithm.kl_coef > 0 or is_anchored(cfg.recipe, cfg.recipe_args),
        )
        found["rollout"] = engine_footprint(
            shapes.policy,
            cfg.rollout,
            dtype=cfg.model.dtype,
            max_tokens=cfg.model.max_prompt_tokens + cfg.model.max_completion_tokens,
            device_bytes=device_bytes,
            sleeps=cfg.placement.colocate,
        )
    if not cfg.reward.uses_model:
        found["reward"] = NO_MODEL
    elif shapes.reward is not None:
        found["reward"] = engine_footprint(
            shapes.reward,
            cfg.reward,
            dtype=cfg.reward.dtype,
            max_tokens=cfg.reward.max_tokens,
            device_bytes=device_bytes,
            sleeps=cfg.placement.colocate,
        )
    return found


def _devices(
    index: int,
    machine: Machine,
    layout: Layout,
    footprints: Mapping[str, Footprint | None],
    *,
    on_gpus: bool,
) -> list[Device]:
    """The GPUs of one node, then its host memory."""
    here = {actor: spot for actor, spot in layout.spots.items() if spot.node == index}
    devices: list[Device] = []
    for gpu in range(machine.gpus if on_gpus else 0):
        actors = tuple(actor for actor, spot in here.items() if gpu in spot.gpus)
        devices.append(
            Device(
                node=index,
                gpu=gpu,
                actors=actors,
                needed=_in_turns(actors, footprints),
                capacity=machine.gpu_bytes or 0,
                complete=_known(actors, footprints),
            )
        )
    in_host_memory = 0
    for actor, spot in here.items():
        footprint = footprints[group_of(actor)]
        if footprint is not None:
            in_host_memory += sum(footprint.host.values()) if spot.gpus else footprint.total
    devices.append(
        Device(
            node=index,
            gpu=None,
            actors=tuple(actor for actor, spot in here.items() if not spot.gpus),
            needed=in_host_memory,
            capacity=machine.host_bytes,
            complete=_known(tuple(here), footprints),
        )
    )
    return devices


def _in_turns(actors: Sequence[str], footprints: Mapping[str, Footprint | None]) -> int:
    """Bytes of a GPU at the worse of two times: engines at work, or the policy.

    With one actor both are the same; where groups share a device, the engines sleep while the
    policy is updated, and are awake when it publishes its weights.
    """
    found = [(group_of(a), f) for a in actors if (f := footprints[group_of(a)]) is not None]
    held = sum(sum(f.held.values()) for _, f in found)
    work = {
        turn: sum(sum(f.working.values()) for group, f in found if (group == "policy") == turn)
        for turn in (True, False)
    }
    work[False] += sum(f.publishing for _, f in found)
    return held + max(work.values())


def _known(actors: Sequence[str], footprints: Mapping[str, Footprint | None]) -> bool:
    found = [footprints[group_of(actor)] for actor in actors]
    return all(footprint is not None and footprint.complete for footprint in found)


def _too_small(devices: Sequence[Device]) -> list[Device]:
    """The first device of each kind (by the groups on it) that holds less than it should."""
    first: dict[tuple[bool, tuple[str, ...]], Device] = {}
    for device in devices:
        if device.needed > device.capacity:
            groups = tuple(sorted({group_of(actor) for actor in device.actors}))
            first.setdefault((device.gpu is None, groups), device)
    return list(first.values())


# --- what would not fit, and the key to change -------------------------------------------------


def _homeless(strategy: Strategy, layout: Layout, machines: Sequence[Machine]) -> list[str]:
    bundle = layout.homeless
    if bundle is None:
        return []
    gpus, cpus = sum(m.gpus for m in machines), sum(m.cpus for m in machines)
    advice = "; PACK and SPREAD only prefer" if strategy.startswith("STRICT") else ""
    return [
        f"placement: {bundle.actor} ({bundle.gpus:g} GPU, {bundle.cpus:g} CPU) has no place on "
        f"{len(machines)} node(s) with {gpus} GPUs and {cpus:g} CPUs (placement.strategy="
        f"{strategy}{advice}): lower rollout.engines, reward.shards or policy.ranks, or raise "
        "placement.num_nodes"
    ]


_LENGTH = {"rollout": "model.max_completion_tokens", "reward": "reward.max_tokens"}


def _starved(place: PlacementConfig, footprints: Mapping[str, Footprint | None]) -> list[str]:
    """Engines whose KV cache does not hold one sequence; vLLM refuses to start then."""
    on_gpu = place.device == "cuda"
    memory = "gpu_memory_utilization" if on_gpu else "kv_cache_gib"
    wider = "" if not on_gpu or place.colocate else "{0}.tensor_parallel or "
    return [
        f"{group}: its KV cache holds no sequence of full length; raise "
        f"{wider.format(group)}{group}.{memory}, or lower {_LENGTH[group]}"
        for group in _LENGTH
        if (footprint := footprints[group]) is not None and footprint.starved
    ]


def _overfull(
    device: Device,
    footprints: Mapping[str, Footprint | None],
    ranks: PolicyConfig,
    *,
    on_cpu: bool,
) -> str:
    where = f"{device.name} of node {device.node}"
    what = (
        f"{where}: {' + '.join(device.actors) or 'its actors'} would need "
        f"{device.needed / GIB:.1f} GiB of {device.capacity / GIB:.1f}"
    )
    groups = {group_of(actor) for actor in device.actors}
    fixes: list[str] = []
    if len(groups) > 1 and device.gpu is not None:
        fixes.append("lower rollout.gpu_memory_utilization and reward.gpu_memory_utilization")
    policy = footprints["policy"]
    if policy is not None and (device.gpu is None or "policy" in groups):
        fixes.append(_smaller_policy(ranks, policy, on_host=device.gpu is None, on_cpu=on_cpu))
    if device.gpu is None and on_cpu:
        fixes.append("lower rollout.kv_cache_gib and reward.kv_cache_gib")
    return f"{what}; {', or '.join(fixes) or 'take a smaller model'}"


def _smaller_policy(
    policy: PolicyConfig, footprint: Footprint, *, on_host: bool, on_cpu: bool
) -> str:
    """The keys that make the largest part of a rank smaller."""
    activations = footprint.working.get("activations", 0) + footprint.working.get("LM head", 0)
    if on_host and not on_cpu:
        return "spread policy.ranks over more nodes"
    if on_cpu or activations > sum(footprint.held.values()):
        checkpoints = policy.gradient_checkpointing
        less = "lower policy.microbatch_tokens"
        return less if checkpoints else f"set policy.gradient_checkpointing=true, or {less}"
    free = [k for k in ("offload_optimizer", "offload_params") if not getattr(policy, k)]
    return "raise policy.ranks" + (f", or set policy.{free[0]}=true" if free else "")
