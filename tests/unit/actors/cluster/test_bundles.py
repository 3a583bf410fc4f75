"""What does not fit on the cluster is said before anything waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ray._private.accelerators import NvidiaGPUAcceleratorManager

from actors.cluster import bundles as module
from actors.cluster.bundles import (
    Bundle,
    Needs,
    bundles,
    check_fits,
    lay_out,
    local_gpu_bytes,
    local_gpus,
    seats,
)
from conf.errors import PlacementError, UserError
from conf.schema import Config, PlacementConfig, ResourceConfig, Strategy
from tests.settings import run_config

pytestmark = pytest.mark.unit

NODE = {"CPU": 8.0, "GPU": 2.0}


def on_gpus(*gpus: float, cpus: float = 1.0) -> list[Bundle]:
    return [Bundle(f"actor-{i}", cpus, share) for i, share in enumerate(gpus)]


def misfit(wanted: list[Bundle], nodes: list[dict[str, float]]) -> str:
    with pytest.raises(PlacementError) as caught:
        check_fits(wanted, nodes, "one_node")
    return str(caught.value)


@pytest.mark.parametrize(
    ("gpus", "nodes"),
    [
        ([1.0, 1.0], [NODE]),
        ([0.5, 0.5, 0.5, 0.5], [NODE]),
        ([0.6, 0.4, 0.6, 0.4], [NODE]),
        ([0.4, 0.4, 0.6, 0.6], [NODE]),  # the larger shares are placed first
        ([1 / 3] * 6, [NODE]),
        ([0.8, 0.1, 0.1], [{"CPU": 8.0, "GPU": 1.0}]),  # a whole, but not in floating point
        ([0.3, 1.0, 0.7], [NODE]),
        ([2.0, 2.0], [NODE, NODE]),
        ([0.0] * 8, [{"CPU": 8.0}]),
        ([], []),
    ],
)
def test_what_fits_is_accepted(gpus, nodes):
    check_fits(on_gpus(*gpus), nodes, "one_node")


@pytest.mark.parametrize(
    ("gpus", "nodes"),
    [
        ([1.0, 1.0, 1.0], [NODE]),
        ([0.6, 0.6, 0.6], [NODE]),  # 1.8 of 2, but no device has 0.6 left
        ([0.5, 2.0], [NODE]),
        ([2.0], [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}]),  # one actor, one node
        ([1.0], [{"CPU": 8.0}]),
        ([0.5], []),
    ],
)
def test_what_has_no_place_is_refused(gpus, nodes):
    misfit(on_gpus(*gpus), nodes)


def test_processors_count_as_well_as_devices():
    check_fits(on_gpus(0.0, 0.0, cpus=4.0), [NODE], "one_node")
    assert "actor-2" in misfit(on_gpus(0.0, 0.0, 0.0, cpus=4.0), [NODE])


def test_processors_and_devices_must_be_on_the_same_node():
    nodes = [{"CPU": 8.0, "GPU": 0.0}, {"CPU": 0.0, "GPU": 2.0}]
    misfit(on_gpus(1.0), nodes)


@pytest.mark.parametrize(
    ("strategy", "gpus", "num_nodes", "fits"),
    [
        ("PACK", [1.0] * 4, 2, True),
        ("STRICT_PACK", [1.0] * 2, 2, True),
        ("STRICT_PACK", [1.0] * 3, 2, False),  # Ray would wait for ever
        ("STRICT_PACK", [1.0], 0, False),
        ("SPREAD", [1.0] * 4, 2, True),
        ("STRICT_SPREAD", [1.0] * 2, 2, True),
        ("STRICT_SPREAD", [1.0] * 3, 2, False),
    ],
)
def test_a_strict_strategy_is_kept_to(strategy, gpus, num_nodes, fits):
    nodes = [NODE] * num_nodes
    if fits:
        check_fits(on_gpus(*gpus), nodes, "one_node", strategy)
        return
    with pytest.raises(PlacementError, match=f"placement.strategy={strategy}"):
        check_fits(on_gpus(*gpus), nodes, "one_node", strategy)


def test_all_on_one_node_may_be_any_node_that_is_large_enough():
    nodes = [NODE, {"CPU": 8.0, "GPU": 4.0}]
    check_fits(on_gpus(*[1.0] * 4), nodes, "one_node", "STRICT_PACK")


def test_a_node_for_each_gives_the_large_bundle_the_large_node():
    nodes = [{"CPU": 8.0, "GPU": 4.0}, NODE]
    check_fits(on_gpus(1.0, 4.0), nodes, "one_node", "STRICT_SPREAD")


@pytest.mark.parametrize(
    ("strategy", "nodes_of_actors"),
    [
        ("PACK", [0, 0, 1]),  # as few nodes as possible
        ("SPREAD", [0, 1, 2]),
        ("STRICT_SPREAD", [0, 1, 2]),
    ],
)
def test_actors_are_laid_out_as_the_strategy_prefers(strategy, nodes_of_actors):
    layout = lay_out(on_gpus(1.0, 1.0, 1.0), [NODE] * 3, strategy)
    assert [layout.spots[f"actor-{i}"].node for i in range(3)] == nodes_of_actors


def test_packing_prefers_a_node_in_use_to_a_smaller_one():
    layout = lay_out(on_gpus(3.0, 1.0), [NODE, {"CPU": 8.0, "GPU": 4.0}], "PACK")
    assert {spot.node for spot in layout.spots.values()} == {1}


@pytest.mark.parametrize(
    ("strategy", "sizes", "nodes_of_actors"),
    [
        # The largest bundle goes where most is left, and that node is filled before the next.
        ("PACK", (4.0, 5.0), [1, 1, 0, 0]),
        ("SPREAD", (4.0, 5.0), [1, 0, 1, 0]),
        # 3 on the small node and three times 2 on the large one would do, but Ray waits for ever.
        ("PACK", (6.0, 3.0), None),
    ],
)
def test_uneven_nodes_are_taken_as_ray_takes_them(
    strategy: Strategy, sizes: tuple[float, ...], nodes_of_actors: list[int] | None
):
    """Bundles of 3, 2, 2 and 2 GPUs. Ray 2.60 has answered the same, asked with such nodes."""
    nodes = [{"CPU": 16.0, "GPU": size} for size in sizes]
    layout = lay_out(on_gpus(3.0, 2.0, 2.0, 2.0), nodes, strategy)
    if nodes_of_actors is None:
        assert layout.homeless is not None
        return
    assert layout.homeless is None
    assert [layout.spots[f"actor-{i}"].node for i in range(4)] == nodes_of_actors


def test_a_small_bundle_goes_where_most_is_left_and_not_where_it_fits_best():
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 8.0}]
    for strategy in ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"):
        assert lay_out(on_gpus(1.0), nodes, strategy).spots["actor-0"].node == 1


def test_processors_count_in_what_is_left():
    nodes = [{"CPU": 64.0, "GPU": 2.0}, {"CPU": 2.0, "GPU": 2.0}]
    assert lay_out(on_gpus(1.0), nodes, "PACK").spots["actor-0"].node == 0
    assert lay_out(on_gpus(1.0), nodes[::-1], "PACK").spots["actor-0"].node == 1


def test_shares_lie_on_one_device_and_wholes_on_devices_of_their_own():
    layout = lay_out(on_gpus(0.5, 0.5, 1.0), [NODE], "PACK")
    gpus = [layout.spots[f"actor-{i}"].gpus for i in range(3)]
    assert gpus == [(1,), (1,), (0,)]
    assert lay_out(on_gpus(2.0), [NODE], "PACK").spots["actor-0"].gpus == (0, 1)


def test_a_misfit_names_what_is_needed_what_is_present_and_who_has_no_place():
    message = misfit(on_gpus(1.0, 1.0, 1.0, 0.5), [NODE])
    assert "placement=one_node needs 3.5 GPUs and 4 CPUs for 4 actors" in message
    assert "1 node(s) with 2 GPUs and 8 CPUs are present" in message
    assert "actor-2 (1 GPU, 1 CPU) has no place" in message
    assert "ray.address" in message


def test_a_misfit_is_the_fault_of_the_user():
    assert issubclass(PlacementError, UserError)


@pytest.fixture(scope="module")
def cfg() -> Config:
    """A quick start whose groups would each take devices."""
    cfg = run_config(["experiment=quickstart"])
    placement: PlacementConfig = replace(
        cfg.placement,
        rollout=ResourceConfig(cpus=2.0, gpus=2.0),
        reward=ResourceConfig(cpus=1.0, gpus=0.5),
        policy=ResourceConfig(cpus=3.0, gpus=1.0),
    )
    return replace(cfg, placement=placement, reward=replace(cfg.reward, kind="rm"))


def test_every_actor_that_is_needed_has_a_bundle_of_its_group(cfg: Config):
    assert bundles(cfg.placement, Needs(rollout=1, reward=2, policy=2)) == [
        Bundle("rollout-0", 2.0, 2.0),
        Bundle("reward-0", 1.0, 0.5),
        Bundle("reward-1", 1.0, 0.5),
        Bundle("policy-0", 3.0, 1.0),
        Bundle("policy-1", 3.0, 1.0),
    ]


def test_groups_that_are_not_needed_take_nothing(cfg: Config):
    assert [b.actor for b in bundles(cfg.placement, Needs(reward=1))] == ["reward-0"]
    assert bundles(cfg.placement, Needs()) == []


def test_a_reward_by_execution_needs_no_device(cfg: Config):
    needs = Needs(rollout=1, reward=2, policy=1, judges_hold_model=False)
    listed = bundles(cfg.placement, needs)
    gpus = {bundle.actor: bundle.gpus for bundle in listed}
    assert gpus == {"rollout-0": 2.0, "reward-0": 0.0, "reward-1": 0.0, "policy-0": 1.0}
    assert listed[1].resources == {"CPU": 1.0}  # Ray takes no entry of zero


def test_groups_that_share_devices_sit_one_of_each_on_every_device(cfg: Config):
    place = replace(
        cfg.placement,
        colocate=True,
        **{group: ResourceConfig(cpus=1.0, gpus=0.3) for group in ("rollout", "reward", "policy")},
    )
    wanted = bundles(place, Needs(rollout=4, reward=4, policy=4))
    assert [b.actor for b in seats(wanted)[2]] == ["rollout-2", "reward-2", "policy-2"]
    for strategy in ("STRICT_PACK", "PACK", "SPREAD"):
        layout = lay_out(wanted, [{"CPU": 6.0, "GPU": 2.0}] * 2, strategy)
        if strategy == "STRICT_PACK":  # no node holds four devices
            assert layout.homeless is not None
            continue
        assert layout.homeless is None
        taken = {actor: (spot.node, spot.gpus) for actor, spot in layout.spots.items()}
        assert len({taken[f"policy-{i}"] for i in range(4)}) == 4
        for i in range(4):
            assert taken[f"rollout-{i}"] == taken[f"reward-{i}"] == taken[f"policy-{i}"]


# --- GPUs of this machine ------------------------------------------------------------------------


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """A machine whose nvidia-smi is the given script, and whose /proc has nothing of a driver."""
    monkeypatch.setattr(module, "_DRIVER", tmp_path / "proc")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(script: str) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return install


def test_gpus_are_those_of_the_driver_that_this_process_may_see(
    driver: object, monkeypatch: pytest.MonkeyPatch
):
    assert local_gpus() == 0 and local_gpu_bytes() is None  # no driver at all
    for index in range(8):
        (module._DRIVER / f"0000:0{index}:00.0").mkdir(parents=True)
    for visible, num in (
        (None, 8),
        ("3", 1),
        ("0,1", 2),
        ("GPU-5f2e,GPU-7a01,GPU-99", 3),
        ("", 0),
        ("NoDevFiles", 0),
        (",".join(map(str, range(9))), 8),
    ):
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert local_gpus() == num, visible
        manager = NvidiaGPUAcceleratorManager.get_current_process_visible_accelerator_ids()
        assert (None if visible is None else num) == (
            None if manager is None else min(8, len(manager))
        )


def test_where_proc_knows_no_driver_nvidia_smi_is_asked(driver: Callable[[str], None]):
    driver(
        """echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'
        echo '  MIG 1g.10gb     Device  0: (UUID: MIG-2)'
        echo 'GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-3)'"""
    )
    assert local_gpus() == 2
    driver("echo 'NVIDIA-SMI has failed because it could not communicate'; exit 9")
    assert local_gpus() == 0 and local_gpu_bytes() is None


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 81559; echo 40960", 40_960 * 2**20),
        ("echo '[N/A]'", None),  # its memory is that of the host
        ("true", None),
        ("exec /bin/sleep 5", None),
    ],
)
def test_memory_of_a_gpu_is_that_of_the_smallest(
    driver: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    found: int | None,
):
    monkeypatch.setattr(module, "_ANSWERS_S", 1.0)
    driver(script)
    assert local_gpu_bytes() == found
