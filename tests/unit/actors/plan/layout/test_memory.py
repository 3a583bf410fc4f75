"""Estimates of memory agree with sums by hand and with the estimator that DeepSpeed publishes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.plan.layout.memory import (
    CONTEXT_BYTES,
    ENGINE_WORK_BYTES,
    GIB,
    PROCESS_BYTES,
    activation_bytes,
    cache_bytes_per_token,
    engine_footprint,
    head_bytes,
    microbatch_within,
    policy_footprint,
)
from actors.plan.layout.model_shape import Dimensions, ModelShape, shape_of
from conf.schema import Config, LoraConfig, PolicyConfig
from tests.settings import run_config

pytestmark = pytest.mark.unit

N = 8_190_735_360  # parameters of Qwen3-8B
STATES = ("parameters", "gradients", "AdamW")


@pytest.fixture(scope="module")
def cfg() -> Config:
    return run_config(["experiment=qwen3_8b_codescaler", "policy.attention=flash_attention_2"])


@pytest.fixture(scope="module")
def qwen() -> ModelShape:
    shape = shape_of("Qwen/Qwen3-8B", scores=False)
    assert shape is not None
    return shape


@pytest.fixture(scope="module")
def dims(qwen: ModelShape) -> Dimensions:
    assert qwen.dimensions is not None
    return qwen.dimensions


def rank(
    model: ModelShape, policy: PolicyConfig, dtype: str = "bfloat16", *, reference: bool = False
):
    return policy_footprint(model, policy, dtype=dtype, on_gpu=True, reference=reference)


def test_the_states_of_qwen3_8b_on_8_ranks(cfg: Config, qwen: ModelShape):
    held = rank(qwen, replace(cfg.policy, ranks=8)).held
    assert [held[name] for name in STATES] == [2 * N // 8, 4 * N // 8, 12 * N // 8]
    assert held["buckets"] == 2 * 500_000_000
    assert held["process"] == CONTEXT_BYTES


def test_float32_weights_are_their_own_master(cfg: Config, qwen: ModelShape):
    held = rank(qwen, replace(cfg.policy, ranks=8), "float32").held
    assert sum(held[name] for name in STATES) == 16 * N // 8


def test_a_reference_is_another_set_of_partitioned_parameters(cfg: Config, qwen: ModelShape):
    plain, penalised = rank(qwen, cfg.policy), rank(qwen, cfg.policy, reference=True)
    assert penalised.total - plain.total == 2 * N // 4


def test_adapters_alone_have_gradients_and_moments_and_their_base_is_the_reference(
    cfg: Config, qwen: ModelShape
):
    policy = replace(cfg.policy, ranks=1, lora=LoraConfig(rank=32))
    attention = 2 * (4096 + 4096) + 2 * (4096 + 1024)  # in and out: q and o, k and v
    num = 36 * 32 * (attention + 3 * (4096 + 12_288))
    held = rank(qwen, policy).held
    assert held["adapters"] == 2 * num
    assert [held[name] for name in STATES] == [2 * N, 4 * num, 12 * num]
    assert rank(qwen, policy, reference=True) == rank(qwen, policy)
    full = rank(qwen, replace(policy, lora=LoraConfig()))
    assert full.working["LM head"] - rank(qwen, policy).working["LM head"] == 6 * 151_936 * 4096


def test_adapters_of_some_layers_are_counted_by_their_names(cfg: Config, qwen: ModelShape):
    def num_of(*targets: str) -> int:
        lora = LoraConfig(rank=8, layers=targets)
        return rank(qwen, replace(cfg.policy, ranks=2, lora=lora)).held["adapters"]

    assert num_of("self_attn.v_proj") == num_of("k_proj") == 36 * 8 * (4096 + 1024)
    assert num_of("of_another_family") == num_of("down_proj")


# What `estimate_zero3_model_states_mem_needs_all_live` of DeepSpeed prints for t5-small on one GPU
# (deepspeed.readthedocs.io/en/latest/memory.html), in GiB; on the device it adds 4 bytes for each
# parameter of the largest layer, which here are the gathered layers.
T5_SMALL = ModelShape(num_parameters=60_506_624, dimensions=None, source="")
LARGEST_LAYER_GIB = 4 * 32_128 * 512 / GIB


@pytest.mark.parametrize(
    ("offload_params", "offload_optimizer", "device_gib", "host_gib"),
    [(False, False, 1.08, 0.0), (False, True, 0.17, 1.35), (True, True, 0.06, 1.52)],
)
def test_model_states_are_those_of_deepspeeds_estimator(
    cfg: Config, offload_params: bool, offload_optimizer: bool, device_gib: float, host_gib: float
):
    policy = replace(
        cfg.policy,
        ranks=1,
        offload_params=offload_params,
        offload_optimizer=offload_optimizer,
    )
    found = rank(T5_SMALL, policy)
    states = sum(found.held.get(name, 0) for name in STATES) / GIB
    assert states + LARGEST_LAYER_GIB == pytest.approx(device_gib, abs=0.005)
    offloaded = sum(found.host.values()) - PROCESS_BYTES
    assert offloaded / GIB == pytest.approx(host_gib, abs=0.005)


def test_checkpointed_activations_of_a_microbatch(cfg: Config, dims: Dimensions):
    tokens = 20_480
    inputs = 36 * tokens * 4096 * 2
    one_layer = tokens * (4 * 4096 + 3 * 4096 + 3 * 1024 + 4 * 12_288) * 2
    assert activation_bytes(dims, cfg.policy, 2) == inputs + one_layer


def test_activations_without_checkpoints_are_those_of_every_layer(cfg: Config, dims: Dimensions):
    policy = replace(cfg.policy, gradient_checkpointing=False, microbatch_tokens=1000)
    assert activation_bytes(dims, policy, 2) == 36 * 1000 * 80_896 * 2


def test_attention_without_a_fused_kernel_costs_the_square_of_a_row(cfg: Config, dims: Dimensions):
    policy = replace(cfg.policy, microbatch_tokens=1024, row_tokens=256)
    fused = activation_bytes(dims, policy, 2)
    masked = activation_bytes(dims, replace(policy, attention="sdpa", share_prefix="off"), 2)
    trees = activation_bytes(dims, replace(policy, attention="sdpa", share_prefix="auto"), 2)
    eager = activation_bytes(dims, replace(policy, attention="eager"), 2)
    assert masked - fused == 4 * 256 * 256  # rows x pairs, a byte each
    assert trees - masked == 4 * 256 * 256 * 2  # what is added to the scores, in bfloat16
    assert activation_bytes(dims, replace(policy, attention="flex_attention"), 2) == fused
    assert eager - trees == 2 * 32 * 4 * 256 * 256 * 2


def test_a_publication_gathers_the_largest_weight_and_puts_it_where_engines_read_it(
    cfg: Config, qwen: ModelShape
):
    assert rank(qwen, cfg.policy).publishing == 2 * 151_936 * 4096 * 2  # above half a GiB each
    assert rank(T5_SMALL, cfg.policy).publishing == 2 * 512 * 2**20


def test_the_lm_head_holds_its_gradient_twice_and_two_chunks_of_logits(dims: Dimensions):
    assert head_bytes(dims, 20_480, 2) == 151_936 * 4096 * 6 + 2 * 4 * 2**26
    assert head_bytes(dims, 10, 2) == 151_936 * 4096 * 6 + 2 * 4 * 10 * 151_936


def engine(cfg: Config, model: ModelShape, device_gib: float | None, *, sleeps: bool = False):
    return engine_footprint(
        model,
        cfg.rollout,
        dtype="bfloat16",
        max_tokens=20_480,
        device_bytes=None if device_gib is None else int(device_gib * GIB),
        sleeps=sleeps,
    )


def test_an_engine_takes_its_share_of_the_device_and_gives_the_rest_to_the_cache(
    cfg: Config, qwen: ModelShape, dims: Dimensions
):
    found = engine(cfg, qwen, 80)
    assert found.total == int(0.85 * 80 * GIB)
    assert found.held["weights"] == 2 * N
    assert found.held["KV cache"] == found.total - 2 * N - ENGINE_WORK_BYTES
    assert cache_bytes_per_token(dims, 2) == 2 * 36 * 8 * 128 * 2  # 147,456
    tokens = found.held["KV cache"] // 147_456
    assert f"{tokens:,} tokens: {tokens // 20_480} sequences" in found.note
    assert not found.starved


def test_tensor_parallel_engines_divide_weights_and_cache(cfg: Config, qwen: ModelShape):
    two = replace(cfg, rollout=replace(cfg.rollout, tensor_parallel=2))
    assert engine(two, qwen, 80).held["weights"] == N
    whole, halves = engine(cfg, qwen, 80).held["KV cache"], engine(two, qwen, 80).held["KV cache"]
    assert halves == whole + N
    assert f"{2 * halves // 147_456:,} tokens" in engine(two, qwen, 80).note


def test_an_engine_without_room_for_one_sequence_is_starved(cfg: Config, qwen: ModelShape):
    # One sequence of 20,480 tokens needs 2.8 GiB of cache.
    assert engine(cfg, qwen, 23).starved  # 0.85 * 23 - 15.3 - 2 = 2.3
    assert not engine(cfg, qwen, 24).starved  # 3.1


def test_an_engine_that_sleeps_holds_nothing_but_its_process(cfg: Config, qwen: ModelShape):
    found = engine(cfg, qwen, 80, sleeps=True)
    assert dict(found.held) == {"process": CONTEXT_BYTES}
    assert found.host["weights asleep"] == 2 * N


def test_on_a_cpu_the_cache_is_what_the_configuration_says(cfg: Config, qwen: ModelShape):
    found = engine(cfg, qwen, None)
    assert found.held["KV cache"] == int(cfg.rollout.kv_cache_gib * GIB)
    assert not found.host


def test_without_a_shape_the_footprint_says_that_it_is_incomplete(cfg: Config):
    unknown = ModelShape(num_parameters=N, dimensions=None, source="")
    assert not rank(unknown, cfg.policy).complete
    assert not engine(cfg, unknown, 80).complete


def test_a_microbatch_is_as_large_as_its_activations_may_be(cfg: Config, dims: Dimensions):
    policy = replace(cfg.policy, gradient_checkpointing=False)  # 5.8 MB a token
    assert microbatch_within(dims, policy, 2, 16 * GIB) == 2048
    assert microbatch_within(dims, policy, 2, 1000 * GIB) == 16_384
    assert microbatch_within(dims, policy, 2, 0) == 1
