"""Configuration -> placement group: what each actor takes, and proof that the cluster can hold it.

One placement group holds the bundles of all actors of a run, so that they are reserved together or
not at all. Before it is asked for, the bundles are laid out on the nodes as Ray reports them: what
does not fit is said at once, instead of a wait that never ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.supervise import wait_for
from conf.schema import Config, PlacementConfig
from rl.errors import PlacementError

_EPSILON = 1e-6
Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
_STRICT: Mapping[Strategy, str] = {
    "STRICT_PACK": "; placement.strategy=STRICT_PACK puts all on one node, PACK does not",
    "STRICT_SPREAD": "; placement.strategy=STRICT_SPREAD takes a node for each, SPREAD does not",
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one actor takes."""

    actor: str  # name, for example "reward-1"
    cpus: float
    gpus: float

    @property
    def resources(self) -> dict[str, float]:
        """As Ray writes it; zero entries left out."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return {name: amount for name, amount in wanted.items() if amount > 0}


@dataclass(frozen=True, slots=True)
class Needs:
    """Which actors a run starts: the number of each, by group."""

    rollout: int = 0
    reward: int = 0
    policy: int = 0


def bundles(cfg: Config, needs: Needs) -> list[Bundle]:
    """One bundle for each actor; a tensor-parallel engine has all its GPUs in one bundle."""
    place = cfg.placement
    executes = cfg.reward.kind == "execution"
    listed: list[Bundle] = []
    for group, resources, count in (
        ("rollout", place.rollout, needs.rollout),
        ("reward", place.reward, needs.reward),
        ("policy", place.policy, needs.policy),
    ):
        gpus = 0.0 if group == "reward" and executes else resources.gpus
        listed += [Bundle(f"{group}-{i}", resources.cpus, gpus) for i in range(count)]
    return listed


def check_fits(
    wanted: Sequence[Bundle],
    nodes: Sequence[Mapping[str, float]],
    kind: str,
    strategy: Strategy = "PACK",
) -> None:
    """Lay the bundles out on the nodes, largest first.

    STRICT_PACK takes one node for all, STRICT_SPREAD a node for each; the others mean a preference.

    Raises:
        PlacementError: naming what is needed, what is there, and the first bundle without a place.
    """
    largest_first = sorted(wanted, key=lambda b: (-b.gpus, -b.cpus))
    smallest_first = sorted(nodes, key=lambda n: (n.get("GPU", 0.0), n.get("CPU", 0.0)))
    packs = strategy == "STRICT_PACK"
    layouts = [[node] for node in smallest_first] if packs else [smallest_first]
    homeless = [_without_place(largest_first, layout, strategy) for layout in layouts or [[]]]
    misplaced = [bundle for bundle in homeless if bundle is not None]
    if len(misplaced) == len(homeless):
        detail = _misfit(misplaced[-1], wanted, nodes, kind)
        raise PlacementError(detail + _STRICT.get(strategy, ""))


def _without_place(
    largest_first: Sequence[Bundle], layout: Sequence[Mapping[str, float]], strategy: Strategy
) -> Bundle | None:
    """The first bundle that finds no place on the nodes of `layout`; None when all do."""
    free = [_FreeNode(node) for node in layout]
    for bundle in largest_first:
        home = next((node for node in free if node.take(bundle)), None)
        if home is None:
            return bundle
        if strategy == "STRICT_SPREAD":
            free.remove(home)
    return None


class _FreeNode:
    """What is left of a node. As in Ray, a share of a GPU lies on one device, never across two."""

    def __init__(self, node: Mapping[str, float]) -> None:
        self._cpus = node.get("CPU", 0.0)
        self._gpus = [1.0] * int(node.get("GPU", 0.0))

    def take(self, bundle: Bundle) -> bool:
        """Take the bundle's resources if they are there."""
        share = min(bundle.gpus, 1.0)  # of each device
        count = math.ceil(bundle.gpus - _EPSILON)
        roomy = [i for i, left in enumerate(self._gpus) if left + _EPSILON >= share]
        if len(roomy) < count or self._cpus + _EPSILON < bundle.cpus:
            return False
        for index in roomy[:count]:
            self._gpus[index] -= share
        self._cpus -= bundle.cpus
        return True


def _misfit(
    bundle: Bundle, wanted: Sequence[Bundle], nodes: Sequence[Mapping[str, float]], kind: str
) -> str:
    def total(name: str) -> float:
        return sum(node.get(name, 0.0) for node in nodes)

    gpus, cpus = sum(b.gpus for b in wanted), sum(b.cpus for b in wanted)
    return (
        f"placement={kind} needs {gpus:g} GPUs and {cpus:g} CPUs for {len(wanted)} actors; "
        f"{len(nodes)} node(s) with {total('GPU'):g} GPUs and {total('CPU'):g} CPUs are present, "
        f"and {bundle.actor} ({bundle.gpus:g} GPU, {bundle.cpus:g} CPU) has no place. Join a "
        "larger cluster with ray.address=..., choose a smaller placement=..., or lower "
        "rollout.engines, reward.shards and policy.ranks"
    )


def local_gpus() -> int:
    """GPUs of this machine, without loading a GPU library."""
    devices = Path("/proc/driver/nvidia/gpus")
    return len(list(devices.iterdir())) if devices.is_dir() else 0


def cluster_nodes() -> list[dict[str, float]]:
    """CPUs and GPUs of every live node of the connected cluster."""
    return [
        {"CPU": node["Resources"].get("CPU", 0.0), "GPU": node["Resources"].get("GPU", 0.0)}
        for node in ray.nodes()
        if node["Alive"]
    ]


class Placement:
    """The reserved placement group; hands each actor its bundle."""

    def __init__(self, group: PlacementGroup, wanted: Sequence[Bundle]) -> None:
        self._group = group
        self._wanted = {bundle.actor: (index, bundle) for index, bundle in enumerate(wanted)}

    @classmethod
    async def reserve(cls, cfg: PlacementConfig, wanted: Sequence[Bundle], name: str) -> Placement:
        """Reserve all bundles together."""
        check_fits(wanted, cluster_nodes(), cfg.kind, cfg.strategy)
        group = placement_group(
            [bundle.resources for bundle in wanted], strategy=cfg.strategy, name=name
        )
        await wait_for(group.ready(), cfg.ready_timeout_s, f"the reservation of {name}")
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

    def release(self) -> None:
        """Give the bundles back."""
        remove_placement_group(self._group)
