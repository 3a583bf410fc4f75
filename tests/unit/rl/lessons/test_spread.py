"""Which groups teach, and how many are sampled in place of the others."""

import dataclasses
import math

import numpy as np
import pytest

from rl.lessons.spread import Refill, spread
from rl.types import JudgedGroup, JudgeKind, Score
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


def judged(*scores, kind=JudgeKind.RM, masked=None) -> JudgedGroup:
    (prompt,) = make_prompts(1)
    group = make_judged(make_group(prompt, len(scores)), [0.0] * len(scores))
    return dataclasses.replace(
        group,
        scores_G=tuple(Score(value=value) for value in scores),
        judge=kind,
        masked_G=None if masked is None else np.array(masked, np.bool_),
    )


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (judged(1.0, -2.0, 0.5), 3.0),
        (judged(1.5, 1.5), 0.0),
        (judged(1.5), 0.0),
        (judged(), 0.0),
        (judged(None, None), 0.0),  # all invalid
        (judged(None, 4.0), math.inf),  # valid code is above invalid code, whatever its score
        (judged(None, 0.0, kind=JudgeKind.EXECUTION), 0.0),  # no code and wrong code: both 0
        (judged(None, 1.0, kind=JudgeKind.EXECUTION), 1.0),
        (judged(9.0, 1.0, 1.5, masked=[True, False, False]), 0.5),
    ],
)
def test_the_spread_is_that_of_raw_scores(group, expected):
    assert spread(group) == expected


def test_groups_within_the_tolerance_are_thrown_away_and_the_rest_kept_in_order():
    groups = [judged(0.0, 0.1), judged(0.0, 0.3), judged(2.0, 2.0), judged(1.0, 3.0)]
    refill = Refill(min_spread=0.1, num_wanted=3, max_tried=8)
    kept = refill.teaching(groups)
    assert [spread(group) for group in kept] == [0.3, 2.0]
    assert refill.num_missing(len(kept), len(groups)) == 1


def test_no_more_than_wanted_is_kept():
    refill = Refill(min_spread=0.0, num_wanted=2, max_tried=8)
    groups = [judged(0.0, float(index)) for index in range(1, 5)]
    assert refill.teaching(groups) == tuple(groups[:2])


@pytest.mark.parametrize(
    ("teaching", "tried", "missing"),
    [(0, 0, 4), (3, 4, 1), (4, 9, 0), (1, 9, 1), (0, 10, 0), (2, 12, 0), (5, 6, 0)],
)
def test_what_is_missing_is_sampled_as_far_as_the_bound_allows(teaching, tried, missing):
    assert (
        Refill(min_spread=0.0, num_wanted=4, max_tried=10).num_missing(teaching, tried) == missing
    )
