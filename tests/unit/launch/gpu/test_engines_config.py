"""The fleets of the check are those of runs: they compose, fit, and send weights as they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from actors.cluster.bundles import Needs, bundles, check_fits
from actors.groups.fleet import rollout_spec, weight_backend
from actors.plan.layout.model_shape import shape_of
from actors.plan.layout.plan import Machine, Shapes, make_plan
from conf.schema import Config
from launch.gpu.engines import Placement, bit_sum, overrides
from launch.gpu.parts import PARTS, Bench, Device
from launch.gpu.results import Recorder
from launch.gpu.shapes import SMALL
from tests.settings import run_config

pytestmark = pytest.mark.unit


def composed(tmp_path: Path, device: Device, placement: Placement) -> Config:
    bench = Bench(device=device, record=Recorder("engines", tmp_path / "rows"), folder=tmp_path)
    return run_config(overrides(bench, placement, tmp_path / "policy", tmp_path / "judge"))


def test_on_one_device_the_groups_take_turns_and_weights_stay_on_it(tmp_path: Path) -> None:
    cfg = composed(tmp_path, "cuda", "one_gpu")
    assert weight_backend(cfg.placement) == "ipc" and cfg.model.dtype == "bfloat16"
    assert rollout_spec(cfg, "policy", trains=True).sleep_mode
    wanted = bundles(cfg.placement, Needs(rollout=1, reward=1, policy=1))
    check_fits(wanted, [{"CPU": 16.0, "GPU": 1.0}], "one_gpu", cfg.placement.strategy)
    share = cfg.rollout.gpu_memory_utilization + cfg.reward.gpu_memory_utilization
    assert share < 0.7  # the policy wants the rest


def test_on_two_devices_weights_go_from_one_to_the_other(tmp_path: Path) -> None:
    cfg = composed(tmp_path, "cuda", "one_node")
    assert weight_backend(cfg.placement) == "nccl"
    wanted = bundles(cfg.placement, Needs(rollout=1, policy=1))
    check_fits(wanted, [{"CPU": 16.0, "GPU": 2.0}], "one_node", cfg.placement.strategy)


@pytest.mark.parametrize(("part", "placement"), [("engines", "one_gpu"), ("nccl", "one_node")])
def test_the_groups_fit_on_the_smallest_gpu_that_the_part_asks_for(
    tmp_path: Path, part: str, placement: Placement
) -> None:
    (needs,) = [one for one in PARTS if one.name == part]
    cfg = composed(tmp_path, "cuda", placement)
    machine = Machine(
        cpus=16, gpus=needs.gpus, host_bytes=2**37, gpu_bytes=int(needs.gib * 2**30), assumed="all"
    )
    shapes = Shapes(policy=shape_of(SMALL, scores=False), reward=shape_of(SMALL, scores=True))
    wanted = bundles(cfg.placement, Needs(rollout=1, reward=int(part == "engines"), policy=1))
    assert make_plan(cfg, [machine], shapes, wanted).misfits == ()


def test_a_rehearsal_needs_no_device(tmp_path: Path) -> None:
    cfg = composed(tmp_path, "cpu", "laptop")
    assert weight_backend(cfg.placement) == "host_memory" and cfg.model.dtype == "float32"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_checksum_knows_a_bit_and_no_layout(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(8, 4, dtype=dtype), torch.randn(2, 4, dtype=dtype)
    fused = torch.cat([query, key, torch.zeros(6, 4, dtype=dtype)])  # as a library may hold them
    assert bit_sum(fused) == bit_sum(query) + bit_sum(key) != 0
    whole = {torch.bfloat16: torch.int16, torch.float32: torch.int32}[dtype]
    fused.view(whole)[3, 1] ^= 1
    assert bit_sum(fused) != bit_sum(query) + bit_sum(key)
