"""Where the actors of a run sit on several nodes with GPUs, rehearsed with GPUs that do not exist.

Ray gives every actor its node and its devices; nobody looks into a device, so no engine is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.cluster.bundles import lay_out, run_bundles
from tests.settings import run_config
from tests.system.placements import CASES, CPUS, GPUS, NODES

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
Seen = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    """Node and devices of each actor, for each case."""
    # A folder of its own, so that no other cluster of this machine is mistaken for it; short, as it
    # holds sockets.
    folder = Path(f"/tmp/rp{os.getpid()}")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.placements"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    yield json.loads(done.stdout.splitlines()[-1])
    shutil.rmtree(folder, ignore_errors=True)


def nodes(found: Seen, group: str = "") -> set[str]:
    return {node for actor, (node, _) in found.items() if actor.startswith(group)}


def devices(found: Seen) -> list[tuple[str, str]]:
    """Each device that some actor sees, as often as it is seen."""
    return [(node, gpu) for node, seen in found.values() for gpu in seen.split(",") if gpu]


def test_one_node_holds_every_actor_and_each_sees_a_device_of_its_own(seen: dict[str, Seen]):
    found = seen["one_node"]
    assert len(nodes(found)) == 1
    assert len(devices(found)) == len(set(devices(found))) == len(found) == GPUS


def test_several_nodes_are_filled_one_after_the_other(seen: dict[str, Seen]):
    found = seen["multi_node"]
    assert len(found) == 2 * GPUS and len(nodes(found)) == 2
    assert len(set(devices(found))) == 2 * GPUS
    assert {gpu for _, gpu in devices(found)} == {str(index) for index in range(GPUS)}


def test_groups_that_share_devices_sit_one_of_each_on_every_device(seen: dict[str, Seen]):
    found = seen["colocated"]
    assert len(nodes(found)) == 1 and len(set(devices(found))) == GPUS
    for index in range(GPUS):
        assert found[f"rollout-{index}"] == found[f"reward-{index}"] == found[f"policy-{index}"]


def test_a_tensor_parallel_engine_sees_all_its_devices_on_one_node(seen: dict[str, Seen]):
    found = seen["tensor_parallel"]
    sizes = {actor: len(gpus.split(",")) for actor, (_, gpus) in found.items()}
    assert sizes == {"rollout-0": 2, "rollout-1": 2, "reward-0": 4, "policy-0": 1, "policy-1": 1}
    assert len(devices(found)) == len(set(devices(found)))
    # A group that takes all devices of a node has the node to itself.
    others = {node for actor, (node, _) in found.items() if actor != "reward-0"}
    assert nodes(found, "reward").isdisjoint(others)


@pytest.mark.parametrize("case", ["spread", "apart"])
def test_spreading_gives_each_group_a_node_of_its_own(seen: dict[str, Seen], case: str):
    assert len(nodes(seen[case])) == len(seen[case]) == NODES


def test_what_no_node_holds_is_refused_at_once(seen: dict[str, Any]):
    assert "placement=one_node needs 6 GPUs" in seen["too_large"]
    assert "STRICT_PACK puts all on one node" in seen["too_large"]


def test_a_run_gets_all_of_its_places_or_none_and_waits_for_no_longer_than_it_may(
    seen: dict[str, Any],
):
    found = seen["gang"]
    assert found["free"] == found["left"] == GPUS < found["wanted"]
    assert "the reservation of second" in found["answer"]
    assert found["after"] == NODES * GPUS  # it takes nothing later either


def test_actors_of_a_lost_node_find_another_and_the_others_stay(seen: dict[str, Any]):
    found = seen["node_loss"]
    before, again, survivors = found["before"], found["again"], found["survivors"]
    assert len(again) == len(survivors) == GPUS
    assert survivors == {name: before[name] for name in survivors}
    assert {node for node, _ in again.values()}.isdisjoint(nodes(before))
    assert sorted(devices(again)) == [
        (node, str(index)) for node in nodes(again) for index in range(GPUS)
    ]


@pytest.mark.parametrize("case", [name for name in CASES if name != "too_large"])
def test_the_plan_says_what_ray_does_up_to_equal_nodes(seen: dict[str, Seen], case: str):
    cfg = run_config(CASES[case])
    layout = lay_out(run_bundles(cfg), [{"CPU": CPUS, "GPU": GPUS}] * NODES, cfg.placement.strategy)
    assert layout.homeless is None
    assert len({spot.node for spot in layout.spots.values()}) == len(nodes(seen[case]))
    for actor, spot in layout.spots.items():
        assert len(spot.gpus) == len(seen[case][actor][1].split(","))
