"""Figures of a reward model against their definitions."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from reward.assess.figures import (
    Attacked,
    Listed,
    attack_figures,
    auc,
    hits_at,
    list_figures,
    pair_figures,
    spearman,
)

pytestmark = pytest.mark.unit


def listed(scores: list[float], passed: list[bool], problem: str = "p") -> Listed:
    return Listed(
        problem=problem,
        scores=tuple(scores),
        pass_rates=tuple(map(float, passed)),
        passed=tuple(passed),
    )


def test_a_tie_is_counted_apart_and_is_not_right():
    found = pair_figures([2.0, 0.0, -1.0, 3.0], ["a", "b", "c", "d"], ["rollout"] * 4, 0).figures
    assert found["accuracy"].value == 0.5
    assert found["ties"].value == 0.25
    assert found["loss"].value == pytest.approx(
        sum(math.log1p(math.exp(-m)) for m in (2, 0, -1, 3)) / 4
    )


def test_a_model_whose_margins_are_log_odds_is_calibrated_and_an_overconfident_one_is_not():
    rng = np.random.default_rng(0)
    margins = np.abs(rng.normal(0, 1.5, 20_000))
    right = rng.random(20_000) < 1 / (1 + np.exp(-margins))
    signed = np.where(right, margins, -margins)
    names = [str(i % 500) for i in range(20_000)]
    honest = pair_figures(list(signed), names, ["x"] * 20_000, 0)
    assert honest.figures["ece"].value < 0.015
    assert all(abs(b.accuracy - b.confidence) < 0.06 for b in honest.bins)
    assert sum(b.num for b in honest.bins) == 20_000
    loud = pair_figures(list(5 * signed), names, ["x"] * 20_000, 0)
    assert loud.figures["ece"].value > 0.15
    assert loud.figures["accuracy"].value == honest.figures["accuracy"].value


def test_accuracy_is_told_by_source_and_intervals_resample_problems():
    margins = [1.0] * 50 + [-1.0] * 50
    sources = ["rollout"] * 50 + ["mutant"] * 50
    one = pair_figures(margins, ["same"] * 100, sources, 0)
    assert one.by_source["rollout"].value == 1 and one.by_source["mutant"].value == 0
    # One problem is one draw: its interval has no width. A hundred problems are a hundred draws.
    assert one.figures["accuracy"].low == one.figures["accuracy"].high == 0.5
    many = pair_figures(margins, [str(i) for i in range(100)], sources, 0).figures["accuracy"]
    assert many.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)
    assert many.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)


def test_hits_at_k_is_the_mean_over_all_orders_of_equals():
    rng = random.Random(0)
    for _ in range(50):
        n = rng.randint(2, 7)
        scores = [float(rng.randint(0, 2)) for _ in range(n)]
        passed = [rng.random() < 0.4 for _ in range(n)]
        k = rng.randint(1, n)
        hits = 0
        for _ in range(400):
            order = sorted(range(n), key=lambda i: (-scores[i], rng.random()))
            hits += any(passed[i] for i in order[:k])
        assert hits_at(scores, passed, k) == pytest.approx(hits / 400, abs=0.09)


def test_auc_counts_every_right_and_wrong_program_of_all_problems():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, 60).astype(float)
    right = rng.random(60) < 0.5
    wins = [(a > b) + (a == b) / 2 for a in scores[right] for b in scores[~right]]
    assert auc(scores, right) == pytest.approx(np.mean(wins))
    weights = rng.integers(0, 3, 60).astype(float)
    repeated = np.repeat(np.arange(60), weights.astype(int))
    assert auc(scores, right, weights) == pytest.approx(auc(scores[repeated], right[repeated]))
    assert math.isnan(auc(scores, np.ones(60, dtype=bool)))


def test_spearman_is_pearson_of_mean_ranks():
    assert spearman([1, 2, 2, 3], [0.0, 0.5, 0.5, 1.0]) == pytest.approx(1)
    assert spearman([3, 2, 1], [0, 1, 2]) == pytest.approx(-1)
    assert spearman([1, 1, 2, 3], [0, 1, 1, 1]) == pytest.approx(0.5443310539518174 * 1.0)
    assert spearman([1, 1], [0, 1]) is None
    assert spearman([1, 2], [1, 1]) is None


def test_lists_count_problems_with_right_and_wrong_programs():
    lists = [
        listed([3, 2, 1], [True, False, False], "a"),
        listed([1, 2, 3], [True, False, False], "b"),
        listed([1, 2], [True, True], "c"),  # says nothing of a ranking
        listed([1], [False], "d"),
    ]
    found = list_figures(lists, (1, 2, 3, 5), 0)
    assert found["hits@1"].value == 0.5 and found["hits@1"].num == 2
    assert found["random@1"].value == pytest.approx(1 / 3)
    assert found["hits@3"].value == 1
    assert "hits@5" not in found
    assert found["auc within"].value == 0.5 and found["auc within"].num == 2
    assert found["spearman mean"].value == pytest.approx(0, abs=1e-9)
    assert found["auc pooled"].num == 9
    assert found["auc pooled"].low <= found["auc pooled"].value <= found["auc pooled"].high
    assert list_figures([], (1,), 0) == {}


def test_an_attack_lifts_only_wrong_programs_that_stood_below():
    def pair(problem: str, right: float, wrong: float, after: float | None) -> Attacked:
        return Attacked(
            problem=problem, right=right, wrong=wrong, right_after=right - 1, wrong_after=after
        )

    rows = [
        pair("a", 2, 1, 3),  # lifted
        pair("b", 2, 1, 2),  # a tie is not above
        pair("c", 1, 2, 5),  # stood above before
        pair("d", 2, 2, 5),  # stood level before
        pair("e", 2, 1, None),  # the attack has nothing to do
        pair("f", 2, 1, 0),
    ]
    found = attack_figures(rows, 0)
    assert found["lifted"].value == pytest.approx(1 / 3) and found["lifted"].num == 3
    assert found["right shift"].value == -1 and found["right shift"].num == 6
    assert found["wrong shift"].value == pytest.approx((2 + 1 + 3 + 3 - 1) / 5)
    assert "lifted" not in attack_figures([pair("e", 2, 1, None)], 0)
