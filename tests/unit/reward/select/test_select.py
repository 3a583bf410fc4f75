"""Selectors choose as their sources say, and their curves are those of brute force."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import UserError
from reward.select import select
from reward.select.select import (
    Candidates,
    by_generated_tests,
    by_reward_model,
    codet,
    mbr_exec,
    oracle_curve,
    random_curve,
    ranking_curve,
    staged,
    vote_curve,
)

pytestmark = pytest.mark.unit


def candidates(
    scores: list[float | None], passed: list[str] | None = None, outputs: list[str] | None = None
) -> Candidates:
    """`passed`: a row of 0 and 1 for each program; `outputs`: letters, `-` did not finish."""
    rows = passed or [""] * len(scores)
    seen = outputs or [""] * len(scores)
    return Candidates(
        valid_N=np.array([score is not None for score in scores]),
        scores_N=np.array([-math.inf if score is None else score for score in scores]),
        passed_NM=np.array([[bit == "1" for bit in row] for row in rows], dtype=bool).reshape(
            len(scores), -1
        ),
        outputs_NI=np.array(
            [[-1 if letter == "-" else ord(letter) for letter in row] for row in seen],
            dtype=np.int32,
        ).reshape(len(scores), -1),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Candidates, np.ndarray]:
    num = draw(st.integers(1, 6))
    scores = draw(st.lists(st.sampled_from([None, -1.0, 0.0, 2.0]), min_size=num, max_size=num))
    num_tests = draw(st.integers(0, 3))
    bits = st.text(st.sampled_from("01"), min_size=num_tests, max_size=num_tests)
    letters = st.text(st.sampled_from("ab-"), min_size=num_tests, max_size=num_tests)
    passed = draw(st.lists(bits, min_size=num, max_size=num))
    outputs = draw(st.lists(letters, min_size=num, max_size=num))
    correct = draw(st.lists(st.booleans(), min_size=num, max_size=num))
    return candidates(scores, passed, outputs), np.array(correct)


def by_brute_force(pick, found: Candidates, correct: np.ndarray, size: int) -> float:
    subsets = [list(chosen) for chosen in combinations(range(len(correct)), size)]
    return float(np.mean([correct[chosen[pick(found.take(chosen))]] for chosen in subsets]))


@given(cases())
@settings(max_examples=30, deadline=None)
def test_the_curve_of_a_ranking_is_the_mean_over_all_subsets(case) -> None:
    found, correct = case
    sizes = range(1, len(correct) + 1)
    for ranking in (by_reward_model, by_generated_tests):
        curve = ranking_curve(ranking(found), correct, list(sizes))
        for size, value in zip(sizes, curve, strict=True):
            expected = by_brute_force(lambda part, r=ranking: r(part)[0], found, correct, size)
            assert value == pytest.approx(expected)


@given(cases())
@settings(max_examples=30, deadline=None)
def test_the_curve_of_a_vote_is_the_mean_over_all_subsets(case) -> None:
    found, correct = case
    sizes = range(1, len(correct) + 1)
    for vote in (mbr_exec, codet, lambda part: staged(part, 2, 2)):
        curve = vote_curve(vote, found, correct, list(sizes), (0, "p"))
        for size, value in zip(sizes, curve, strict=True):
            assert value == pytest.approx(by_brute_force(vote, found, correct, size))


@given(cases())
@settings(max_examples=30, deadline=None)
def test_the_oracle_and_chance_are_means_over_all_subsets(case) -> None:
    _, correct = case
    sizes = list(range(1, len(correct) + 1))
    for size, value in zip(sizes, oracle_curve(correct, sizes), strict=True):
        subsets = list(combinations(correct, size))
        assert value == pytest.approx(sum(map(any, subsets)) / len(subsets))
    assert random_curve(correct, sizes) == [pytest.approx(correct.mean())] * len(sizes)


@given(cases())
@settings(max_examples=30, deadline=None)
def test_no_selector_is_better_than_the_oracle_or_needs_more_than_all(case) -> None:
    found, correct = case
    num = len(correct)
    best = oracle_curve(correct, [num])[0]
    for vote in (mbr_exec, codet, lambda part: staged(part, 2, 1)):
        assert vote_curve(vote, found, correct, [num], (0, "p")) == [correct[vote(found)]]
        assert correct[vote(found)] <= best


def test_drawn_subsets_repeat_with_the_seed_and_come_near_the_mean_over_all() -> None:
    rng = np.random.default_rng(0)
    found = candidates([float(x) for x in rng.normal(size=16)])
    correct = rng.random(16) < 0.4
    exact = ranking_curve(by_reward_model(found), correct, [8])[0]

    def drawn(seed: int) -> float:
        return vote_curve(lambda p: by_reward_model(p)[0], found, correct, [8], (seed, "p"))[0]

    assert drawn(0) == drawn(0)
    assert {drawn(seed) for seed in range(8)} != {drawn(0)}
    mean = float(np.mean([drawn(seed) for seed in range(40)]))
    assert mean == pytest.approx(exact, abs=0.02)


def test_invalid_programs_come_last_and_ties_stay_in_order() -> None:
    found = candidates([None, -5.0, 1.0, None, 1.0])
    assert by_reward_model(found) == [2, 4, 1, 0, 3]
    # An engine's score of something that does not parse must not matter.
    loud = Candidates(
        valid_N=found.valid_N,
        scores_N=np.array([9.0, -5.0, 1.0, 9.0, 1.0]),
        passed_NM=found.passed_NM,
        outputs_NI=found.outputs_NI,
    )
    assert by_reward_model(loud) == [2, 4, 1, 0, 3]


def test_generated_tests_take_the_most_passed_and_the_first_of_equals() -> None:
    assert by_generated_tests(candidates([None] * 3, ["10", "11", "11"])) == [1, 2, 0]
    assert by_generated_tests(candidates([0.0, 1.0])) == [0, 1]  # no test could be read


def test_the_majority_of_outputs_wins_and_failures_agree_with_nobody() -> None:
    assert mbr_exec(candidates([0.0] * 4, outputs=["aa", "bb", "bb", "cc"])) == 1
    assert mbr_exec(candidates([0.0] * 4, outputs=["--", "--", "--", "ab"])) == 3
    assert mbr_exec(candidates([0.0] * 3, outputs=["ax", "ay", "bx"])) == 0
    assert mbr_exec(candidates([0.0] * 2)) == 0
    # The fourth shares more single outputs than any, but all of them with nobody.
    assert mbr_exec(candidates([0.0] * 6, outputs=["aab", "aba", "baa", "aaa", "ccc", "ccc"])) == 4
    assert mbr_exec(candidates([0.0] * 3, outputs=["ab", "a-", "a-"])) == 1


def test_codet_weighs_the_size_of_a_cluster_by_the_tests_it_passes() -> None:
    # 3 programs x 1 test lose to 2 programs x 2 tests; 1 program x 3 tests loses to both.
    passed = ["1000", "1000", "1000", "0110", "0110", "0111"]
    assert codet(candidates([0.0] * 6, passed)) == 3
    assert codet(candidates([0.0] * 2, ["00", "00"])) == 0


def test_stages_leave_few_programs_to_few_tests() -> None:
    scores = [1.0, 3.0, 2.0, None]
    passed = ["111", "001", "011", "111"]
    assert staged(candidates(scores, passed), top_k=2, num_tests=3) == 2
    assert staged(candidates(scores, passed), top_k=2, num_tests=1) == 1  # both fail: the score
    assert staged(candidates(scores, passed), top_k=3, num_tests=3) == 0
    assert staged(candidates(scores, passed), top_k=1, num_tests=3) == 1


def test_sizes_beyond_the_samples_are_refused() -> None:
    correct = np.array([True, False])
    for size in (0, 3):
        with pytest.raises(UserError, match="must be from 1"):
            ranking_curve([0, 1], correct, [size])
        with pytest.raises(UserError, match="must be from 1"):
            vote_curve(codet, candidates([0.0, 0.0]), correct, [size], (0, "p"))


def test_the_number_of_subsets_is_bounded() -> None:
    calls = 0

    def count(part: Candidates) -> int:
        nonlocal calls
        calls += 1
        assert len(part.scores_N) == 8
        return 0

    vote_curve(count, candidates([0.0] * 16), np.zeros(16, dtype=bool), [8], (0, "p"))
    assert calls == select._NUM_SUBSETS
