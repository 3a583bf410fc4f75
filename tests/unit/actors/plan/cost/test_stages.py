"""GPU hours of the recipe, and rates from shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.plan.cost.case import Case, case_of
from actors.plan.cost.parts import engine_slots, kv_bytes
from actors.plan.cost.stages import NUM_PAIRS, recipe_stages
from actors.plan.layout.model_shape import ModelShape, shape_of
from conf.errors import UserError
from launch.common.compose import compose_config

pytestmark = pytest.mark.unit


def case(experiment: str, **rates: float) -> Case:
    return case_of(compose_config([f"experiment={experiment}"]), {}, rates, None)


def test_a_run_costs_its_steps_on_all_its_gpus():
    rollouts, rl = case("qwen3_8b_rollouts"), case("qwen3_8b_codescaler")
    hours = {stage.name: stage.gpu_hours for stage in recipe_stages(rollouts, rl, 250)}
    assert hours["RL"] == pytest.approx(250 * rl.cost().step_s * 8 / 3600)
    assert hours["rollouts for pairs"] == pytest.approx(250 * rollouts.cost().step_s * 8 / 3600)
    assert hours["data"] == hours["pairs"] == 0
    assert hours["best-of-N"] > hours["evaluation"] > 0


def test_the_reward_model_costs_the_tokens_of_its_pairs():
    rl = case("qwen3_8b_codescaler", update_tokens_per_s=1000.0)
    texts = rl.work.lengths
    hours = {stage.name: stage.gpu_hours for stage in recipe_stages(rl, rl, 1)}
    tokens = 2 * NUM_PAIRS * (texts.prompt_tokens + texts.code_tokens)
    assert hours["reward model"] == pytest.approx(tokens / 1000 / 3600)


def test_rates_follow_the_shape_of_the_model():
    small, large = case("qwen3_1_7b_one_gpu"), case("qwen3_8b_codescaler")
    assert small.rates.decode_step_s < large.rates.decode_step_s
    assert small.rates.update_tokens_per_s > large.rates.update_tokens_per_s
    eight = shape_of("Qwen/Qwen3-8B-Base", scores=False)
    assert eight is not None
    assert kv_bytes(eight) == 147_456  # as the comment of the experiment says
    unknown = ModelShape(num_parameters=8, dimensions=None, source="the size in its name")
    with pytest.raises(UserError, match="only the size is known"):
        kv_bytes(unknown)


def test_an_engine_holds_no_more_sequences_than_its_cache():
    cfg = compose_config(["experiment=qwen3_8b_codescaler"])
    eight = shape_of("Qwen/Qwen3-8B-Base", scores=False)
    assert eight is not None
    texts = case("qwen3_8b_codescaler").work.lengths
    few = engine_slots(cfg, eight, replace(texts, answer_tokens=16_384.0))
    many = engine_slots(cfg, eight, replace(texts, prompt_tokens=1.0, answer_tokens=1.0))
    # 363,000 tokens of cache, half of the answer being there on average
    assert few == pytest.approx(363_000 / (600 + 8_192), rel=0.05)
    assert many == cfg.rollout.max_num_seqs


def test_shared_devices_hold_every_group_and_tests_need_no_gpu():
    assert case("qwen3_8b_colocated").layout.takes_turns
    assert case("qwen3_8b_colocated").devices == 8
    assert case("qwen3_8b_rollouts").devices == 8
    assert case("qwen3_8b_codescaler").devices == 8
