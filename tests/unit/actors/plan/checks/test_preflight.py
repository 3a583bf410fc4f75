"""What this machine cannot hold is refused before anything is started."""

from __future__ import annotations

import pytest

from actors.cluster.bundles import Needs, run_needs
from actors.plan.checks import preflight as module
from actors.plan.checks.preflight import preflight
from conf.errors import PlacementError
from tests.settings import run_config

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores and 16 GiB, without GPU and cluster."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(module, "local_gpus", lambda: 0)
    monkeypatch.setattr(module, "host_bytes", lambda: 16 * 2**30)


def refusal(*overrides: str, needs: Needs | None = None) -> str:
    cfg = run_config(overrides)
    with pytest.raises(PlacementError) as caught:
        preflight(cfg, needs or run_needs(cfg))
    return str(caught.value)


@pytest.mark.parametrize("group", ["rollout", "reward", "policy"])
def test_more_threads_than_cores_are_refused_by_the_key(group: str) -> None:
    key = f"{group}.cpu_threads"
    assert refusal(f"{key}=3") == (
        f"{key}: 3 threads of one actor, on a machine with 2 cores (give at most {key}=2)"
    )
    preflight(cfg := run_config([f"{key}=2"]), run_needs(cfg))


def test_caches_beyond_the_memory_of_the_machine_are_refused_by_the_largest() -> None:
    message = refusal("rollout.kv_cache_gib=5", "reward.kv_cache_gib=12")
    assert message.startswith("reward.kv_cache_gib: the KV caches of all engines take 17 GiB, and")
    assert "16.0 GiB of memory" in message
    preflight(cfg := run_config(["reward.kv_cache_gib=12"]), run_needs(cfg))


def test_caches_of_several_engines_add_up() -> None:
    many = ["rollout.engines=4", "rollout.kv_cache_gib=4", "placement.rollout.cpus=0.25"]
    assert "take 16.5 GiB" in refusal(*many)


def test_what_a_command_does_not_start_is_not_looked_at() -> None:
    cfg = run_config(["reward.cpu_threads=3", "reward.kv_cache_gib=99", "policy.cpu_threads=3"])
    preflight(cfg, Needs(rollout=1))
    cfg = run_config(["reward=execution", "reward.kv_cache_gib=99", "reward.cpu_threads=3"])
    preflight(cfg, run_needs(cfg))


def test_machines_of_a_cluster_are_not_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    preflight(cfg := run_config(["policy.cpu_threads=64", "policy.ranks=64"]), run_needs(cfg))
