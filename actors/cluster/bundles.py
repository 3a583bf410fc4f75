"""Bundles: what each actor of a configuration takes, and whether given nodes can hold them all.

Plain arithmetic over numbers of CPUs and GPUs, without Ray: plans and the doctor need no cluster.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.errors import PlacementError
from conf.schema import Config, PlacementConfig, Strategy

_EPSILON = 1e-6
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
    seat: int | None = None  # actors of one seat share a device and lie together; None: by itself

    @property
    def resources(self) -> dict[str, float]:
        """As Ray writes it; zero entries left out."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return {name: amount for name, amount in wanted.items() if amount > 0}


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one actor sits."""

    node: int
    gpus: tuple[int, ...]  # of that node; empty on CPUs


@dataclass(frozen=True, slots=True)
class Layout:
    """Actors on nodes, and the first bundle that found no place, if one did not."""

    spots: Mapping[str, Spot]
    homeless: Bundle | None


@dataclass(frozen=True, slots=True)
class Needs:
    """Which actors a run starts: the number of each, by group."""

    rollout: int = 0
    reward: int = 0
    policy: int = 0
    judges_hold_model: bool = True  # a reward actor without one needs no device


def run_needs(cfg: Config) -> Needs:
    """The actors of a whole run."""
    return Needs(
        rollout=cfg.rollout.engines,
        reward=cfg.reward.shards,
        policy=cfg.policy.ranks,
        judges_hold_model=cfg.reward.uses_model,
    )


def run_bundles(cfg: Config) -> list[Bundle]:
    """The bundles of a whole run."""
    return bundles(cfg.placement, run_needs(cfg))


def bundles(place: PlacementConfig, needs: Needs) -> list[Bundle]:
    """One bundle for each actor; a tensor-parallel engine has all its GPUs in one bundle.

    Where groups share devices, the first actor of each group sits with the first of the others, and
    so on: with several devices each holds one engine, one shard and one rank, as collectives and
    weights that travel within a device need it.
    """
    listed: list[Bundle] = []
    for group, resources, count in (
        ("rollout", place.rollout, needs.rollout),
        ("reward", place.reward, needs.reward),
        ("policy", place.policy, needs.policy),
    ):
        gpus = resources.gpus if group != "reward" or needs.judges_hold_model else 0.0
        seated = place.colocate and gpus > 0
        listed += [
            Bundle(f"{group}-{i}", resources.cpus, gpus, i if seated else None)
            for i in range(count)
        ]
    return listed


def seats(wanted: Sequence[Bundle]) -> list[tuple[Bundle, ...]]:
    """The actors that lie together, in the order of the first of each."""
    found: dict[int | str, list[Bundle]] = {}
    for bundle in wanted:
        found.setdefault(bundle.actor if bundle.seat is None else bundle.seat, []).append(bundle)
    return [tuple(members) for members in found.values()]


def together(members: Sequence[Bundle]) -> Bundle:
    """What the actors of a seat take as one."""
    cpus, gpus = sum(b.cpus for b in members), sum(b.gpus for b in members)
    return Bundle(members[0].actor, cpus, gpus)


def check_fits(
    wanted: Sequence[Bundle],
    nodes: Sequence[Mapping[str, float]],
    kind: str,
    strategy: Strategy = "PACK",
) -> None:
    """Prove that the nodes hold the bundles, by laying them out.

    Raises:
        PlacementError: naming what is needed, what is there, and the first bundle without a place.
    """
    layout = lay_out(wanted, nodes, strategy)
    if layout.homeless is not None:
        detail = _misfit(layout.homeless, wanted, nodes, kind)
        raise PlacementError(detail + _STRICT.get(strategy, ""))


def lay_out(
    wanted: Sequence[Bundle], nodes: Sequence[Mapping[str, float]], strategy: Strategy
) -> Layout:
    """Lay bundles out as the strategy asks, largest first, small nodes before large ones.

    STRICT_PACK: the first node that holds all. STRICT_SPREAD: a node for each. SPREAD: the node
    with the fewest bundles, if it has room. PACK: a node that is in use already, if it has room.
    Ray has the same preferences; between equal nodes or devices it may choose otherwise.
    """
    members = {(whole := together(seat)).actor: (whole, seat) for seat in seats(wanted)}
    largest_first = sorted(
        (whole for whole, _ in members.values()), key=lambda b: (-b.gpus, -b.cpus)
    )
    order = sorted(
        range(len(nodes)), key=lambda i: (nodes[i].get("GPU", 0), nodes[i].get("CPU", 0))
    )
    choices = [[index] for index in order] if strategy == "STRICT_PACK" else [order]
    layout = Layout({}, largest_first[0] if largest_first else None)  # without any node
    for chosen in choices:
        layout = _fill(largest_first, [_FreeNode(i, nodes[i]) for i in chosen], strategy)
        if layout.homeless is None:
            break
    spots = {
        bundle.actor: spot for actor, spot in layout.spots.items() for bundle in members[actor][1]
    }
    return Layout(spots, layout.homeless)


def _fill(largest_first: Sequence[Bundle], free: list[_FreeNode], strategy: Strategy) -> Layout:
    """Take bundle after bundle, until one finds no place on the free nodes."""
    spots: dict[str, Spot] = {}
    for bundle in largest_first:
        if strategy == "SPREAD":
            free.sort(key=lambda node: node.num_bundles)
        else:
            free.sort(key=lambda node: node.num_bundles == 0)
        spot = next((spot for node in free if (spot := node.take(bundle))), None)
        if spot is None:
            return Layout(spots, bundle)
        spots[bundle.actor] = spot
        if strategy == "STRICT_SPREAD":
            free = [node for node in free if node.index != spot.node]
    return Layout(spots, None)


class _FreeNode:
    """What is left of a node. As in Ray, a share of a GPU lies on one device, never across two."""

    def __init__(self, index: int, node: Mapping[str, float]) -> None:
        self.index = index
        self.num_bundles = 0
        self._cpus = node.get("CPU", 0.0)
        self._gpus = [1.0] * int(node.get("GPU", 0.0))

    def take(self, bundle: Bundle) -> Spot | None:
        """Take the bundle's resources if they are there."""
        share = min(bundle.gpus, 1.0)  # of each device
        count = math.ceil(bundle.gpus - _EPSILON)
        roomy = [i for i, left in enumerate(self._gpus) if left + _EPSILON >= share]
        if len(roomy) < count or self._cpus + _EPSILON < bundle.cpus:
            return None
        for index in roomy[:count]:
            self._gpus[index] -= share
        self._cpus -= bundle.cpus
        self.num_bundles += 1
        return Spot(self.index, tuple(roomy[:count]))


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
        "larger cluster (RAY_ADDRESS or ray.address), choose a smaller placement=..., or lower the "
        "number of engines, shards and ranks"
    )


def local_gpus() -> int:
    """GPUs of this machine, without loading a GPU library."""
    devices = Path("/proc/driver/nvidia/gpus")
    return len(list(devices.iterdir())) if devices.is_dir() else 0


def local_gpu_bytes() -> int | None:
    """Memory of the smallest GPU of this machine as its driver states it; None without one."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if shutil.which(query[0]) is None:
        return None
    answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    sizes_mib = [int(line) for line in answer.stdout.split() if line.isdigit()]
    return min(sizes_mib) << 20 if sizes_mib else None
