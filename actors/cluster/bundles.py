"""Bundles: what each actor of a configuration takes, and whether given nodes can hold them all.

Plain arithmetic over numbers of CPUs and GPUs, without Ray: plans and the doctor need no cluster.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.errors import PlacementError
from conf.schema import Config, PlacementConfig, Strategy

_EPSILON = 1e-6
_DRIVER = Path("/proc/driver/nvidia/gpus")
_ANSWERS_S = 10.0
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
    """Lay bundles out as Ray does, largest first, or find the first that it gives no place.

    The best node for a bundle is the one that it leaves most of, as a share of what is free there.
    PACK fills the best node of the largest bundle with whatever fits, and goes on with the others.
    SPREAD takes nodes without a bundle, if one has room; STRICT_SPREAD takes no others; STRICT_PACK
    takes one for all. Between equal nodes or devices Ray may choose otherwise; what it gives no
    place waits for ever, though another order may have found one.
    """
    members = {(whole := together(seat)).actor: (whole, seat) for seat in seats(wanted)}
    largest_first = sorted(
        (whole for whole, _ in members.values()), key=lambda b: (-b.gpus, -b.cpus)
    )
    free = [_FreeNode(index, node) for index, node in enumerate(nodes)]
    if strategy == "STRICT_PACK":
        layout = _on_one(largest_first, free)
    elif strategy == "PACK":
        layout = _packed(largest_first, free)
    else:
        layout = _spread(largest_first, free, strict=strategy == "STRICT_SPREAD")
    spots = {
        bundle.actor: spot for actor, spot in layout.spots.items() for bundle in members[actor][1]
    }
    return Layout(spots, layout.homeless)


def _on_one(wanted: Sequence[Bundle], free: Sequence[_FreeNode]) -> Layout:
    if not wanted:
        return Layout({}, None)
    layout = Layout({}, wanted[0])
    for node in sorted(free, key=lambda node: -node.left_of(together(wanted))):
        layout = _packed(wanted, [node])
        if layout.homeless is None:
            break
    return layout


def _packed(wanted: Sequence[Bundle], free: Sequence[_FreeNode]) -> Layout:
    spots: dict[str, Spot] = {}
    waiting, free = list(wanted), list(free)
    while waiting:
        node = _best(waiting[0], free)
        if node is None:
            return Layout(spots, waiting[0])
        free.remove(node)
        spots |= {b.actor: spot for b in waiting if (spot := node.take(b)) is not None}
        waiting = [b for b in waiting if b.actor not in spots]
    return Layout(spots, None)


def _spread(wanted: Sequence[Bundle], free: Sequence[_FreeNode], *, strict: bool) -> Layout:
    spots: dict[str, Spot] = {}
    used: list[_FreeNode] = []
    free = list(free)
    for bundle in wanted:
        node = _best(bundle, free) or (None if strict else _best(bundle, used))
        spot = None if node is None else node.take(bundle)
        if node is None or spot is None:
            return Layout(spots, bundle)
        spots[bundle.actor] = spot
        if node in free:
            free.remove(node)
            used.append(node)
    return Layout(spots, None)


def _best(bundle: Bundle, free: Sequence[_FreeNode]) -> _FreeNode | None:
    """The node that this bundle leaves most of; the first of equal ones."""
    able = [node for node in free if node.holds(bundle)]
    return max(able, key=lambda node: node.left_of(bundle), default=None)


class _FreeNode:
    """What is left of a node. As in Ray, a share of a GPU lies on one device, never across two."""

    def __init__(self, index: int, node: Mapping[str, float]) -> None:
        self._index = index
        self._cpus = node.get("CPU", 0.0)
        self._gpus = [1.0] * int(node.get("GPU", 0.0))

    def left_of(self, bundle: Bundle) -> float:
        """What the bundle would leave: the share of what is free, summed over what it takes."""
        free = {"CPU": self._cpus, "GPU": sum(self._gpus)}
        return sum(
            (free[name] - amount) / free[name]
            for name, amount in bundle.resources.items()
            if free[name] > 0
        )

    def holds(self, bundle: Bundle) -> bool:
        """Whether the bundle's resources are there."""
        roomy, count = self._devices(bundle)
        return len(roomy) >= count and self._cpus + _EPSILON >= bundle.cpus

    def take(self, bundle: Bundle) -> Spot | None:
        """Take the bundle's resources if they are there."""
        if not self.holds(bundle):
            return None
        roomy, count = self._devices(bundle)
        for index in roomy[:count]:
            self._gpus[index] -= min(bundle.gpus, 1.0)
        self._cpus -= bundle.cpus
        return Spot(self._index, tuple(roomy[:count]))

    def _devices(self, bundle: Bundle) -> tuple[list[int], int]:
        """Devices that have room for the bundle's share of each, and how many it takes."""
        share = min(bundle.gpus, 1.0)
        roomy = [i for i, left in enumerate(self._gpus) if left + _EPSILON >= share]
        return roomy, math.ceil(bundle.gpus - _EPSILON)


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
    """GPUs of this machine that Ray would give away, without loading a GPU library.

    `CUDA_VISIBLE_DEVICES` limits them, as it does for Ray. Where the driver has no folder in /proc,
    as in WSL2, nvidia-smi is asked.
    """
    if _DRIVER.is_dir():
        found = len(list(_DRIVER.iterdir()))
    else:
        found = sum(line.startswith("GPU ") for line in _nvidia_smi("-L").splitlines())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    return 0 if visible in ("", "NoDevFiles") else min(found, len(visible.split(",")))


def local_gpu_bytes() -> int | None:
    """Memory of the smallest GPU of this machine as its driver states it; None without one, and
    where it has no memory of its own."""
    answer = _nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    sizes_mib = [int(line) for line in answer.split() if line.isdigit()]
    return min(sizes_mib) << 20 if sizes_mib else None


def _nvidia_smi(*arguments: str) -> str:
    """What it prints; nothing where it is missing, fails or does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=_ANSWERS_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout
