"""The figures of an evaluation are the estimators that they claim to be."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import UserError
from rl.run.evaluate import best_of_n, pass_at_k, shares_of, summarise, won_pairs

pytestmark = pytest.mark.unit


@given(
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(case: tuple[int, int, int]) -> None:
    n, c, k = case
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_stable_where_binomials_overflow() -> None:
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5)
    assert pass_at_k(100_000, 1, 1) == pytest.approx(1e-5)
    assert pass_at_k(200, 0, 100) == 0.0


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(UserError, match="must be from"):
        pass_at_k(n, c, k)


def test_a_report_averages_over_problems() -> None:
    report = summarise([[True, True, False, False], [False] * 4, [True] * 4], ks=(1, 2, 4), seed=0)
    assert report.pass_at_1 == pytest.approx(0.5)
    assert report.pass_at[2] == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert report.pass_at[4] == pytest.approx(2 / 3)
    assert (report.num_problems, report.num_samples, report.avg) == (3, 12, 0.5)


def test_problems_weigh_equally_in_pass_at_1_and_completions_in_the_average() -> None:
    report = summarise([[True], [False] * 3], ks=(1,), seed=0)
    assert (report.pass_at_1, report.avg) == (0.5, 0.25)


def test_the_interval_covers_the_figure_and_shrinks_with_problems() -> None:
    few = summarise([[True, False]] * 5 + [[False, False]] * 5, ks=(1, 2), seed=0)
    many = summarise([[True, False]] * 500 + [[False, False]] * 500, ks=(1, 2), seed=0)
    for k in (1, 2):
        for report in (few, many):
            low, high = report.interval[k]
            assert low < report.pass_at[k] < high
        assert many.interval[k][1] - many.interval[k][0] < few.interval[k][1] - few.interval[k][0]
    low, high = many.interval[2]
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 1000**0.5, rel=0.1)


def test_the_interval_repeats_with_the_seed() -> None:
    correct = [[bool(idx % 3)] for idx in range(50)]
    assert summarise(correct, (1,), seed=1) == summarise(correct, (1,), seed=1)
    assert summarise(correct, (1,), seed=1).interval != summarise(correct, (1,), seed=2).interval


def test_an_evaluation_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="empty"):
        summarise([], ks=(1,), seed=0)
    with pytest.raises(UserError, match="k=2"):
        summarise([[True]], ks=(2,), seed=0)


@pytest.mark.parametrize(
    ("scores", "correct", "expected"),
    [
        ([[0.0, 2.0, 1.0]], [[False, True, False]], 1.0),
        ([[None, -1e9]], [[True, False]], 0.0),
        ([[None, None]], [[True, False]], 1.0),
        ([[1.0, 1.0]], [[False, True]], 0.0),
        ([[1.0], [1.0]], [[True], [False]], 0.5),
        ([[None, float("-inf")]], [[False, True]], 1.0),
    ],
)
def test_best_of_n_takes_the_first_highest_and_unscored_last(
    scores: list[list[float | None]], correct: list[list[bool]], expected: float
) -> None:
    assert best_of_n(scores, correct) == expected


def test_scores_that_do_not_match_are_refused() -> None:
    with pytest.raises(UserError, match="shapes"):
        best_of_n([[1.0]], [[True, False]])
    with pytest.raises(UserError, match="empty"):
        best_of_n([], [])


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), max_size=12))
def test_pairs_are_won_as_if_each_was_looked_at(rows):
    scores, right, weights = (np.array([row[k] for row in rows]) for k in range(3))
    won = pairs = 0.0
    for (a, is_right, times), (b, other, again) in itertools.product(rows, rows):
        if is_right and not other:
            won += times * again * ((a > b) + (a == b) / 2)
            pairs += times * again
    found = won_pairs(scores.astype(np.float64), right.astype(np.bool_), weights.astype(np.float64))
    assert found == (won, pairs)


@given(st.lists(st.one_of(st.none(), st.integers(-2, 2).map(float)), min_size=1, max_size=8))
def test_the_best_of_n_is_the_first_of_those_with_the_highest_score(scores):
    known = [score for score in scores if score is not None]
    first = scores.index(max(known)) if known else 0
    for index in range(len(scores)):
        correct = [place == index for place in range(len(scores))]
        assert best_of_n([scores], [correct]) == float(index == first)


def test_shares_of_a_ratio_move_it_as_resampling_its_problems_does() -> None:
    rng = np.random.default_rng(0)
    sizes_P = rng.integers(1, 9, 80)
    right_P = rng.binomial(sizes_P, rng.random(80))

    def figures(chosen_P: Sequence[int]) -> dict[str, float]:
        share = float(right_P[[*chosen_P]].sum() / sizes_P[[*chosen_P]].sum())
        return {"share": share} | ({"first": 1.0} if 0 in chosen_P else {})

    shares = shares_of(figures, range(80))
    assert shares.keys() == {"share"}  # the other is undefined without a problem
    assert shares["share"].mean() == pytest.approx(figures(range(80))["share"])
    resampled = [figures(rng.integers(80, size=80).tolist())["share"] for _ in range(2000)]
    assert shares["share"].std() / 80**0.5 == pytest.approx(np.std(resampled), rel=0.06)
    assert shares_of(figures, range(1)) == {}
