"""Preflight: whether this machine holds the actors, known before anything is started.

Only what is certain is refused here: places, threads, and KV caches that no memory holds. What is
estimated (`actors.plan.layout.plan`) is shown by a dry run.
"""

from __future__ import annotations

import os

from actors.cluster.bundles import Needs, bundles, check_fits, local_gpus
from conf.errors import PlacementError
from conf.schema import Config

_GIB = 2**30


def preflight(cfg: Config, needs: Needs) -> None:
    """Prove that this machine can hold the actors, without Ray, so that it answers at once.

    The nodes of a cluster that is joined are checked when the bundles are reserved.

    Raises:
        PlacementError: naming what is needed and what is there.
    """
    if cfg.ray.cluster is not None:
        return
    place = cfg.placement
    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(local_gpus())}
    check_fits(bundles(place, needs), [here], place.kind, place.strategy)
    if place.device == "cpu":
        faults = [*thread_faults(cfg, needs, os.cpu_count() or 1), *_caches(cfg, needs)]
        if faults:
            raise PlacementError("\n".join(faults))


def host_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def thread_faults(cfg: Config, needs: Needs, cores: float) -> list[str]:
    """Actors that run on CPUs with more threads than the machine has `cores`."""
    if cfg.placement.device != "cpu":
        return []
    given = {
        "rollout.cpu_threads": cfg.rollout.cpu_threads if needs.rollout else 0,
        "reward.cpu_threads": cfg.reward.cpu_threads if _num_scorers(needs) else 0,
        "policy.cpu_threads": cfg.policy.cpu_threads if needs.policy else 0,
    }
    return [
        f"{key}: {threads} threads of one actor, on a machine with {cores:g} cores (give at most "
        f"{key}={max(1, int(cores))})"
        for key, threads in given.items()
        if threads > cores
    ]


def _caches(cfg: Config, needs: Needs) -> list[str]:
    """KV caches that are larger than the memory of the machine, together."""
    given = {
        "rollout.kv_cache_gib": needs.rollout * cfg.rollout.kv_cache_gib,
        "reward.kv_cache_gib": _num_scorers(needs) * cfg.reward.kv_cache_gib,
    }
    there = host_bytes() / _GIB
    if sum(given.values()) < there:
        return []
    largest = max(given, key=given.__getitem__)
    return [
        f"{largest}: the KV caches of all engines take {sum(given.values()):g} GiB, and the "
        f"machine has {there:.1f} GiB of memory (lower {largest}, or the number of engines)"
    ]


def _num_scorers(needs: Needs) -> int:
    """Reward actors with an engine."""
    return needs.reward if needs.judges_hold_model else 0
