"""Lineups: one right program where one is meant, every program where a choice is meant."""

from __future__ import annotations

import random

import pytest

from rl.lessons.lineups import Known, covering, distance_rewards, kendall_tau, known_of, one_right
from rl.types import Lineup, Score, Verdict

pytestmark = pytest.mark.unit

KNOWN = [Known("r1", 1.0), Known("r2", 1.0), *(Known(f"w{i}", i / 10) for i in range(5))]


def lineups(known: list[Known], sizes: list[int], num: int = 200) -> list[Lineup]:
    found = [one_right(known, sizes, random.Random(seed)) for seed in range(num)]
    return [lineup for lineup in found if lineup is not None]


def test_exactly_one_program_is_right_and_its_place_tells_nothing():
    found = lineups(KNOWN, [3])
    assert all(lineup.pass_rates_N.count(1.0) == 1 for lineup in found)
    assert all(len(set(lineup.codes_N)) == 3 for lineup in found)
    places = [lineup.right for lineup in found]
    assert all(50 <= places.count(letter) <= 85 for letter in "ABC")


def test_lengths_are_drawn_and_end_where_wrong_programs_do():
    assert {len(lineup.codes_N) for lineup in lineups(KNOWN, [2, 5])} == {2, 5}
    two_wrong = KNOWN[:4]
    assert {len(lineup.codes_N) for lineup in lineups(two_wrong, [2, 5])} == {2, 3}


def test_without_a_right_program_or_enough_wrong_ones_there_is_no_list():
    assert lineups(KNOWN[2:], [2]) == []
    assert lineups(KNOWN[:3], [3]) == []


def test_wrong_programs_of_different_pass_rates_are_preferred():
    known = [Known("r", 1.0), *(Known(f"zero{i}", 0.0) for i in range(20)), Known("half", 0.5)]
    assert all("half" in lineup.codes_N for lineup in lineups(known, [3]))


def test_a_choice_is_among_all_programs_whatever_is_known_of_them():
    found = covering("0123456", 3, 2, random.Random(0))
    assert sorted(code for codes in found for code in codes) == sorted("0123456" * 2)
    assert all(2 <= len(codes) <= 3 for codes in found)
    assert covering("0", 3, 2, random.Random(0)) == []


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((1.0, 0.5), [1.0, -0.8]),
        ((0.9, 0.7, 1.0, 0.1, 0.3), [-0.2, -0.4, 1.0, -0.8, -0.6]),
        ((0.0, 1.0, 0.0), [-0.6, 1.0, -0.6]),
    ],
)
def test_a_wrong_choice_costs_more_the_worse_its_program(
    rates: tuple[float, ...], expected: list[float]
):
    lineup = Lineup(codes_N=tuple(map(str, rates)), pass_rates_N=rates)
    assert distance_rewards(lineup) == pytest.approx(expected)


def test_kendalls_tau_counts_ties_as_tau_b():
    assert kendall_tau([3, 2, 1], [1, 2, 3]) == -1.0
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 6**0.5)


def test_known_programs_are_those_that_were_judged_each_once():
    wrong = Score(value=0.0, verdict=Verdict.WRONG_ANSWER, num_passed=3, num_tests=4)
    stopped = Score(value=0.0, verdict=Verdict.WRONG_ANSWER, num_tests=4)
    right = Score(value=1.0, verdict=Verdict.PASSED)
    unjudged = Score(value=0.0, verdict=Verdict.UNJUDGED)
    judged = [("a", wrong), ("a", wrong), ("b", right), ("c", Score(value=None)), ("d", unjudged)]
    judged += [("", Score(value=None, verdict=Verdict.NO_CODE)), ("e", stopped)]
    assert known_of(judged) == [Known("a", 0.75), Known("b", 1.0), Known("e", 0.0)]
