"""Shaping keeps the order of scores and puts every valid completion above every invalid one."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import NonFiniteError
from conf.schema import ShapingKind
from reward.judges.shaping import shape_rewards

pytestmark = pytest.mark.unit

KINDS: list[ShapingKind] = ["softplus", "raw", "clip", "sigmoid", "rank"]
SCORES = st.floats(-1e4, 1e4)
GROUPS = st.lists(st.none() | SCORES, max_size=16)


@pytest.mark.parametrize(("score", "reward"), [(6.5424089, 6.5438489), (-0.0312653, 0.6776367)])
def test_softplus_reproduces_the_rewards_of_the_paper(score: float, reward: float) -> None:
    assert shape_rewards([score], "softplus")[0] == pytest.approx(reward, abs=5e-7)


@pytest.mark.parametrize("kind", KINDS)
@given(scores=GROUPS)
def test_valid_is_above_invalid_and_everything_is_finite(
    kind: ShapingKind, scores: list[float | None]
) -> None:
    rewards = shape_rewards(scores, kind)
    assert rewards.dtype == np.float32
    assert rewards.shape == (len(scores),)
    assert np.isfinite(rewards).all()
    valid = [r for r, s in zip(rewards, scores, strict=True) if s is not None]
    invalid = [r for r, s in zip(rewards, scores, strict=True) if s is None]
    if valid and invalid:
        assert min(valid) > max(invalid)


@pytest.mark.parametrize("kind", KINDS)
@given(scores=st.lists(SCORES, min_size=2, max_size=16))
def test_order_of_scores_is_order_of_rewards(kind: ShapingKind, scores: list[float]) -> None:
    ordered = shape_rewards(sorted(scores), kind)
    assert (np.diff(ordered) >= 0).all()


@given(score=st.floats(-80, 1000), step=st.floats(0.01, 10))
def test_softplus_and_raw_are_strictly_increasing_where_f32_can_tell(
    score: float, step: float
) -> None:
    for kind in ("softplus", "raw"):
        low, high = shape_rewards([score, score + step], kind)
        assert low < high


def test_softplus_ties_only_at_the_floor() -> None:
    low, high, above = shape_rewards([-1e4, -88.0, -87.0], "softplus")
    assert low == high == np.finfo(np.float32).tiny
    assert above > high


def test_no_kind_warns_of_an_overflow() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            shape_rewards([-1e4, -745.0, 0.0, 710.0, 1e4, None], kind)


def test_sigmoid_stays_inside_the_open_interval() -> None:
    low, middle, high = shape_rewards([-1e4, 0.0, 1e4], "sigmoid")
    assert 0 < low < middle == 0.5
    assert middle < high < 1


def test_raw_gives_invalid_one_less_than_the_lowest_valid() -> None:
    assert shape_rewards([2.0, None, -3.5], "raw").tolist() == [2.0, -4.5, -3.5]


def test_clip_bounds_what_one_score_can_earn_and_keeps_invalid_below() -> None:
    assert shape_rewards([9.0, None, -3.5], "clip").tolist() == [4.0, -4.5, -3.5]
    assert shape_rewards([-9.0, None, 1.0], "clip").tolist() == [-4.0, -5.0, 1.0]


@pytest.mark.parametrize("score", [-1e30, 1e9, -1e9, 1e300, -1e300])
def test_raw_is_strictly_lower_for_invalid_where_one_is_below_precision(score: float) -> None:
    valid, invalid = shape_rewards([score, None], "raw")
    assert invalid < valid
    assert np.isfinite([valid, invalid]).all()


def test_rank_shares_the_mean_rank_among_ties() -> None:
    rewards = shape_rewards([5.0, None, 1.0, 5.0, -2.0], "rank")
    assert rewards.tolist() == [0.875, 0.0, 0.5, 0.875, 0.25]


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_without_valid_code_has_no_reward(kind: ShapingKind) -> None:
    assert shape_rewards([None, None], kind).tolist() == [0.0, 0.0]
    assert shape_rewards([], kind).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_stops_with_its_index(kind: ShapingKind, score: float) -> None:
    with pytest.raises(NonFiniteError, match="score 2 of a group of 3"):
        shape_rewards([1.0, None, score], kind)
