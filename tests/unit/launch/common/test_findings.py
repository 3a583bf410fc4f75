"""Findings name what is missing on a machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from launch.common.compose import compose_config
from launch.common.findings import (
    Hardware,
    devices,
    experiment_finding,
    missing,
    origin,
    port_finding,
)

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[4]
LAPTOP = Hardware(num_cpus=2, memory_gib=16, shm_gib=8, gpus=())
SERVER = Hardware(num_cpus=64, memory_gib=512, shm_gib=256, gpus=("H100, 81559 MiB",) * 8)
PATHS = ["model.path", "reward.model", "data.train_path", "data.eval_path"]
QWEN = ["experiment=qwen3_8b_codescaler", *(f"++{path}=GIVEN" for path in PATHS)]


def test_a_laptop_lacks_nothing_for_the_whole_loop() -> None:
    assert missing(compose_config(["experiment=whole_loop"]), LAPTOP) == []


def test_a_laptop_lacks_the_gpus_of_the_8b_run_and_a_server_does_not() -> None:
    config = compose_config(QWEN)
    assert missing(config, LAPTOP) == ["30 CPUs", "8 GPUs"]
    assert missing(config, SERVER) == []


def test_a_cluster_is_more_than_one_machine() -> None:
    config = compose_config([*QWEN, "placement=multi_node"])
    assert missing(config, SERVER) == ["3 more machines"]


@pytest.mark.parametrize(
    ("memory_gib", "shm_gib", "store_gib"),
    [
        (16, 8, None),
        (16, 2, "4.8"),  # 30% of the memory
        (512, 9, "9.3"),  # Ray takes what there is from 10 GB on
        (512, 16, None),
        (24, 0.0625, "7.2"),  # a container that was given no more
    ],
)
def test_shared_memory_below_what_ray_takes_is_noticed(
    memory_gib: float, shm_gib: float, store_gib: str | None
) -> None:
    machine = Hardware(num_cpus=2, memory_gib=memory_gib, shm_gib=shm_gib, gpus=())
    (found,) = [one for one in devices(machine) if one.thing == "/dev/shm"]
    wanted = f"Ray's object store takes up to {store_gib} GiB: it may use files, slowly"
    assert found.remark == ("" if store_gib is None else wanted)


def test_files_that_only_the_user_has_are_named() -> None:
    finding = experiment_finding("qwen3_8b_codescaler", SERVER)
    assert finding.remark == "needs data/deepcoder/train.parquet, data/deepcoder/test.parquet"
    assert experiment_finding("quickstart", LAPTOP).remark == ""


def test_a_port_in_use_is_noticed() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert port_finding(port, "test").found == "in use"
    assert port_finding(port, "test").found == "free"


def test_a_package_that_shadows_ours_is_noticed() -> None:
    assert origin("rl").remark == ""
    assert origin("json").remark == f"expected {TREE / 'json'}"


def test_judges_that_hold_no_model_need_no_gpu() -> None:
    config = compose_config([*QWEN, "reward=execution"])
    assert missing(config, LAPTOP) == ["30 CPUs", "7 GPUs"]
