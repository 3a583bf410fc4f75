"""A plan shows who sits where, adds up what lies on each device, and names the key to change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.plan.layout.dry_run import assumed_machine, model_shapes
from actors.plan.layout.memory import GIB
from actors.plan.layout.plan import Machine, Plan, Shapes, make_plan
from actors.plan.layout.plan_text import describe, picture
from conf.schema import Config
from tests.settings import shipped_config

pytestmark = pytest.mark.unit

QWEN = "experiment=qwen3_8b_codescaler"
COLOCATED = [
    *(QWEN, "placement=one_gpu", "model.path=Qwen/Qwen3-0.6B"),
    *("reward.model=LARK-Lab/CodeScaler-1.7B", "rollout.engines=1", "policy.ranks=1"),
    *("rollout.gpu_memory_utilization=0.4", "reward.gpu_memory_utilization=0.2"),
]


def config(*overrides: str) -> Config:
    return shipped_config(overrides)


def shapes(cfg: Config) -> Shapes:
    return model_shapes(cfg.model.path, cfg.reward.model, made=cfg.loop.enabled)


def planned(*overrides: str, nodes: int | None = None, gpu_gib: float | None = None) -> Plan:
    cfg = config(*overrides)
    machine = assumed_machine(cfg.placement.node)
    if gpu_gib is not None:
        machine = replace(machine, gpu_bytes=int(gpu_gib * GIB))
    return make_plan(cfg, [machine] * (nodes or cfg.placement.num_nodes), shapes(cfg))


@pytest.mark.parametrize("experiment", ["quickstart", "qwen3_8b_codescaler", "whole_loop"])
def test_the_shipped_experiments_fit_on_the_machines_they_are_made_for(experiment: str):
    plan = planned(f"experiment={experiment}")
    assert plan.misfits == ()
    assert all(device.complete for device in plan.devices)


def test_the_8b_run_fills_eight_gpus_of_one_node():
    plan = planned(QWEN)
    owners = [device.actors for device in plan.devices if device.gpu is not None]
    names = ["rollout-0", "rollout-1", "rollout-2", "reward-0"]
    assert owners == [(name,) for name in [*names, *(f"policy-{i}" for i in range(4))]]


def test_a_device_that_would_overflow_is_named_with_the_keys_to_change():
    (misfit,) = planned(QWEN, gpu_gib=48).misfits
    assert misfit.startswith("gpu 4 of node 0: policy-0 would need 52.0 GiB of 48.0")
    assert "raise policy.ranks, or set policy.offload_optimizer=true" in misfit


def test_what_the_advice_says_makes_it_fit():
    assert planned(QWEN, "policy.offload_optimizer=true", gpu_gib=48).misfits == ()


def test_activations_that_are_too_large_ask_for_checkpoints_first():
    (misfit,) = planned(QWEN, "policy.gradient_checkpointing=false").misfits
    assert misfit.endswith(
        "set policy.gradient_checkpointing=true, or lower policy.microbatch_tokens"
    )


def test_an_engine_without_room_for_its_weights_asks_for_more_devices():
    misfits = planned(QWEN, "policy.offload_optimizer=true", gpu_gib=20).misfits
    assert any(
        line.startswith("rollout: its KV cache holds no sequence of full length; raise "
        "rollout.tensor_parallel or rollout.gpu_memory_utilization")
        for line in misfits
    )  # fmt: skip


def test_actors_without_a_place_are_named_with_the_strategy():
    (misfit,) = planned(QWEN, "policy.ranks=5").misfits
    assert misfit.startswith("placement: policy-4 (1 GPU, 4 CPU) has no place on 1 node(s)")
    assert "STRICT_PACK" in misfit


def test_groups_that_share_a_device_count_by_turns():
    plan = planned(*COLOCATED)
    gpu = plan.devices[0]
    assert gpu.actors == ("rollout-0", "reward-0", "policy-0")
    parts = {group: plan.footprints[group] for group in ("rollout", "reward", "policy")}
    held = sum(sum(p.held.values()) for p in parts.values() if p)
    work = {group: sum(p.working.values()) for group, p in parts.items() if p}
    policy = parts["policy"]
    assert policy is not None and policy.publishing > 0
    engines = work["rollout"] + work["reward"] + policy.publishing  # which are awake to receive
    assert gpu.needed == held + max(engines, work["policy"])
    assert plan.misfits == ()


def test_engines_that_share_a_device_may_not_both_take_most_of_it():
    misfits = planned(*COLOCATED, "reward.gpu_memory_utilization=0.85").misfits
    assert "lower rollout.gpu_memory_utilization and reward.gpu_memory_utilization" in misfits[0]


def test_the_execution_reward_takes_no_device_and_no_model():
    plan = planned(QWEN, "reward=execution")
    assert plan.layout.spots["reward-0"].gpus == ()
    assert [d.actors for d in plan.devices if d.gpu is None] == [("reward-0",)]


def test_a_model_of_unknown_size_makes_the_plan_incomplete_and_is_no_misfit():
    plan = planned(QWEN, "model.path=someone/model")
    assert plan.misfits == ()
    assert not plan.devices[0].complete
    cfg = config(QWEN, "model.path=someone/model")
    text = "\n".join(describe(cfg, plan, shapes(cfg)))
    assert "someone/model: size unknown" in text
    assert "what is known of it fits" in text


def test_the_picture_shows_nodes_as_boxes_and_devices_as_lines():
    cfg = config(QWEN)
    lines = picture(cfg.placement, planned(QWEN))
    assert lines[0] == "placement one_node: 8 actors, STRICT_PACK"
    assert lines[2].startswith("+- node 0 (assumed), 32 of 64 CPUs taken ---")
    row = "| gpu 4  policy-0                         [##############......] 52.0 of 79.0 GiB"
    assert lines[7].startswith(row)
    assert len({len(line) for line in lines[2:]}) == 1  # the box is straight
    assert all(line.isascii() for line in lines)


def test_the_picture_has_a_box_for_each_node():
    plan = planned(QWEN, "placement=multi_node", "rollout.engines=16", "policy.ranks=8")
    assert {spot.node for spot in plan.layout.spots.values()} == {0, 1, 2, 3}
    cfg = config(QWEN, "placement=multi_node")
    assert sum(line.startswith("+- node") for line in picture(cfg.placement, plan)) == 4


def test_many_actors_on_a_laptop_take_several_lines():
    lines = picture(config().placement, planned("reward.shards=2"))
    rows = [line for line in lines if line.startswith("|")]
    assert rows[0].startswith("| host   rollout-0 + reward-0 + reward-1")
    assert rows[1].startswith("|        + policy-0 + policy-1")


def test_the_text_lists_what_differs_from_the_defaults():
    cfg = config(QWEN, "policy.lr=3e-6")
    text = "\n".join(describe(cfg, planned(QWEN), shapes(cfg)))
    assert "ranks=4 lr=3e-06 warmup_steps=20" in text
    assert "grad_clip" not in text


def test_a_device_that_is_too_small_is_marked():
    cfg = config(QWEN)
    small = Machine(cpus=64, gpus=8, gpu_bytes=GIB, host_bytes=GIB, assumed="nothing")
    plan = make_plan(cfg, [small], Shapes(policy=None, reward=None))
    assert plan.misfits == ()  # nothing is known, so nothing is claimed
    plan = make_plan(cfg, [small], shapes(cfg))
    lines = picture(cfg.placement, plan)
    assert "OVER" in "\n".join(lines)
    assert len({len(line) for line in lines[2:]}) == 1  # the box stays straight
