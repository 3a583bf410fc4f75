"""The predicted step: what was measured, and what must hold of any rates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from actors.plan.cost.case import case_of
from actors.plan.cost.parts import TWO_CORES, Layout, Lengths, Rates, Work
from actors.plan.cost.step import fastest, predict, savings, splits
from actors.plan.shipped import with_shipped_models
from conf.errors import UserError
from conf.schema import Config
from launch.common.compose import compose_config

pytestmark = pytest.mark.unit

MEASURED_S, TOLERANCE = 1.22, 0.25  # docs/performance.md: a step of the quickstart, beside TRL
RATES = Rates(
    decode_step_s=0.01,
    rollout_tokens_per_s=1_000.0,
    prefill_tokens_per_s=10_000.0,
    scores_per_s=10.0,
    update_tokens_per_s=500.0,
    update_latency_s=0.5,
    publish_latency_s=1.0,
    publish_gb_per_s=2.0,
    driver_ms=1.0,
)
TEXTS = Lengths(prompt_tokens=100.0, answer_tokens=200.0, longest_tokens=400.0, valid_share=1.0)
WORK = Work(prompts=12, group_size=4, lengths=TEXTS, weight_bytes=4e9)
LAYOUT = Layout(engines=3, shards=2, ranks=4, slots=1_000)


def config(*overrides: str) -> Config:
    return with_shipped_models(compose_config(list(overrides)))


def test_the_quickstart_takes_what_was_measured_of_it():
    case = case_of(config("experiment=quickstart"), {}, {}, None)
    assert case.cost().step_s == pytest.approx(MEASURED_S, rel=TOLERANCE)
    assert case.rates == TWO_CORES


def test_the_phases_of_a_step_by_hand():
    cost = predict(RATES, WORK, LAYOUT)
    # 4 problems x 4 completions on each engine: 400 decode steps, 3,200 tokens, 400 prompt tokens.
    assert cost.rollout_s == pytest.approx(400 * 0.01 + 3.2 + 0.04)
    assert cost.score_s == pytest.approx(6 * 4 / 10)  # 6 problems on each shard
    assert cost.tail_s == pytest.approx(0.4)  # one group: the others are hidden
    assert cost.driver_s == pytest.approx(0.048)
    assert cost.update_s == pytest.approx(48 * 300 / 4 / 500 + 0.5)
    assert cost.publish_s == pytest.approx(1.0 + 2.0)
    phases_s = cost.rollout_s + cost.tail_s + cost.driver_s + cost.update_s + cost.publish_s
    assert cost.step_s == pytest.approx(phases_s)


def test_scores_that_take_longer_than_the_rollout_are_seen():
    slow = replace(RATES, scores_per_s=1.0)
    cost = predict(slow, WORK, LAYOUT)
    assert cost.tail_s == pytest.approx(24 - cost.rollout_s / 2)
    turns = predict(RATES, WORK, replace(LAYOUT, takes_turns=True))
    assert turns.tail_s == turns.score_s  # nothing is hidden on shared devices


def test_sampling_ahead_hides_the_shorter_half_but_no_publication():
    cost = predict(RATES, WORK, LAYOUT)
    ahead = predict(RATES, WORK, replace(LAYOUT, staleness=1))
    collect_s, learn_s = cost.rollout_s + cost.tail_s, cost.driver_s + cost.update_s
    assert ahead.step_s == pytest.approx(max(collect_s, learn_s) + cost.publish_s)
    shared = replace(LAYOUT, staleness=1, takes_turns=True)
    together = predict(RATES, WORK, replace(shared, staleness=0))
    assert predict(RATES, WORK, shared).step_s == together.step_s


def test_a_part_that_takes_no_time_is_gone_from_the_step():
    turns = replace(LAYOUT, takes_turns=True)
    cost, saved = predict(RATES, WORK, turns), savings(RATES, WORK, turns)
    assert saved["rollout"] == pytest.approx(cost.rollout_s)
    assert saved["update"] == pytest.approx(cost.update_s)
    assert sum(saved.values()) == pytest.approx(cost.step_s)
    ahead = replace(LAYOUT, staleness=1)
    least = min("rollout", "update", key=lambda part: savings(RATES, WORK, ahead)[part])
    assert savings(RATES, WORK, ahead)[least] == pytest.approx(0)  # it is hidden already


def test_answers_beyond_the_slots_of_an_engine_wait_for_a_free_one():
    few = predict(RATES, WORK, replace(LAYOUT, slots=4))
    enough = predict(RATES, WORK, LAYOUT)
    assert few.rollout_s - enough.rollout_s == pytest.approx((3200 / 4 - 400) * 0.01)


def test_a_group_that_is_never_at_work_waits_all_the_time():
    free = replace(RATES, scores_per_s=math.inf)
    idle = predict(free, WORK, LAYOUT).idle
    assert idle["reward"] == 1.0
    assert all(0 <= share <= 1 for share in idle.values())


def test_more_engines_are_never_slower_and_the_fastest_layout_is_the_best_of_all():
    times = [predict(RATES, WORK, replace(LAYOUT, engines=n)).step_s for n in (1, 2, 4, 12, 24)]
    assert times == sorted(times, reverse=True)

    def step_s(layout: Layout) -> float:
        return predict(RATES, WORK, layout).step_s

    best = fastest(splits(16, LAYOUT, 2), step_s)
    assert best is not None
    assert best.engines + best.shards + best.ranks == 16
    others = [
        replace(LAYOUT, engines=e, shards=s, ranks=16 - e - s)
        for e in range(1, 14)
        for s in range(1, 15 - e)
    ]
    assert step_s(best) == min(step_s(other) for other in others if other.ranks >= 2)
    assert fastest(splits(3, LAYOUT, 2), step_s) is None


def test_engines_of_two_devices_and_judges_on_cpus_leave_what_is_left():
    found = [(one.engines, one.shards, one.ranks) for one in splits(6, LAYOUT, 1, per_engine=2)]
    assert found == [(1, 1, 3), (1, 2, 2), (1, 3, 1), (2, 1, 1)]
    by_tests = [(one.engines, one.ranks) for one in splits(4, LAYOUT, 2, per_shard=0)]
    assert by_tests == [(1, 3), (2, 2)]
    shared = replace(LAYOUT, takes_turns=True)
    assert [(one.engines, one.shards, one.ranks) for one in splits(8, shared, 8)] == [(8, 8, 8)]


def test_runs_that_cannot_be_predicted_are_refused_by_name():
    with pytest.raises(UserError, match=r"^devices: 4 are too few for 4 ranks"):
        case_of(config("experiment=qwen3_8b_codescaler"), {}, {}, 4)
    with pytest.raises(UserError, match=r"^recipe: cure is not predicted"):
        case_of(config("experiment=recipe_cure"), {}, {}, None)
    with pytest.raises(UserError, match=r"^devices: quickstart runs on a CPU"):
        case_of(config("experiment=quickstart"), {}, {}, 8)
    with pytest.raises(UserError, match=r"^texts.answer_tokens: 20000 is above the longest, 16384"):
        case_of(config("experiment=qwen3_8b_codescaler"), {"answer_tokens": 20_000.0}, {}, None)


def test_another_model_on_a_cpu_needs_rates_of_its_own():
    cfg = config("experiment=smollm2_mbpp")
    with pytest.raises(UserError, match=r"has 135 M parameters.*give rates.decode_step_s, rates"):
        case_of(cfg, {}, {}, None)
    rates = {name: getattr(RATES, name) for name in Rates.__slots__}
    assert case_of(cfg, {}, rates, None).rates == RATES
