"""Identities and hand-computed values of group-relative advantages."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import NonFiniteError
from conf.schema import AdvantageBaseline
from rl.advantage import AdvantageConfig, batch_advantages, group_advantages
from rl.types import JudgedGroup, JudgeKind, Part
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

SCALES = ("group_std", "batch_std", "none", "rank")

groups = st.lists(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=9).map(
        lambda values: np.array(values, np.float32)
    ),
    min_size=1,
    max_size=5,
)


def advantages(scale, *groups_PG, std_floor=0.05, baseline: AdvantageBaseline = "group"):
    rewards_PG = [np.array(group, np.float32) for group in groups_PG]
    cfg = AdvantageConfig(scale=scale, std_floor=std_floor, baseline=baseline)
    return group_advantages(rewards_PG, cfg)


@pytest.mark.parametrize("scale", SCALES)
@given(rewards_PG=groups)
def test_advantages_sum_to_zero_in_every_group(scale, rewards_PG):
    result_PG = group_advantages(rewards_PG, AdvantageConfig(scale=scale, std_floor=0.05))
    assert [a.shape for a in result_PG] == [r.shape for r in rewards_PG]
    for advantages_G in result_PG:
        assert advantages_G.dtype == np.float32
        assert abs(advantages_G.sum(dtype=np.float64)) <= 1e-6 * (1 + np.abs(advantages_G).sum())


@pytest.mark.parametrize("scale", SCALES)
@given(rewards_PG=groups, offset=st.integers(-64, 64))
def test_an_offset_of_all_rewards_changes_nothing(scale, rewards_PG, offset):
    rounded_PG = [np.round(rewards_G) for rewards_G in rewards_PG]  # so that the sums are exact
    cfg = AdvantageConfig(scale=scale, std_floor=0.05)
    for plain_G, moved_G in zip(
        group_advantages(rounded_PG, cfg),
        group_advantages([r + np.float32(offset) for r in rounded_PG], cfg),
        strict=True,
    ):
        np.testing.assert_allclose(plain_G, moved_G, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("group", [[0.3], [0.1] * 8, [7.3] * 3, []])
def test_a_group_without_differences_gets_exact_zeros(scale, group):
    flat_G, other_G = advantages(scale, group, [0.0, 1.0])
    assert flat_G.tolist() == [0.0] * len(group)
    assert other_G[1] > 0


@pytest.mark.parametrize("scale", SCALES)
def test_no_groups_give_no_advantages(scale):
    assert advantages(scale) == []


def test_group_std_divides_by_the_population_std_of_the_group():
    first_G, second_G = advantages("group_std", [0, 0, 0, 4], [1, 3])
    np.testing.assert_allclose(first_G, np.array([-1, -1, -1, 3]) / np.sqrt(3), rtol=1e-6)
    np.testing.assert_allclose(second_G, [-1, 1])


def test_batch_std_is_the_root_mean_square_of_the_centred_rewards_of_all_groups():
    # Centred: -2, 2 | -1, 0, 1. Mean of squares (4 + 4 + 1 + 0 + 1) / 5 = 2.
    first_G, second_G = advantages("batch_std", [0, 4], [9, 10, 11])
    np.testing.assert_allclose(first_G, np.array([-2, 2]) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(second_G, np.array([-1, 0, 1]) / np.sqrt(2), rtol=1e-6)


def test_none_only_centres():
    assert advantages("none", [0, 4], [9, 10, 11]) == [
        pytest.approx([-2, 2]),
        pytest.approx([-1, 0, 1]),
    ]


def test_rank_shares_the_average_rank_of_ties_and_has_unit_std_without_them():
    untied_G, tied_G = advantages("rank", [5, -3, 0.1, 100], [1, 1, 2])
    np.testing.assert_allclose(untied_G, np.array([0.5, -1.5, -0.5, 1.5]) / np.sqrt(15 / 12))
    assert np.std(untied_G) == pytest.approx(1.0)
    np.testing.assert_allclose(tied_G, np.array([-0.5, -0.5, 1.0]) / np.sqrt(8 / 12), rtol=1e-6)


@given(rewards_PG=groups)
def test_leave_one_out_compares_each_reward_with_the_mean_of_the_others(rewards_PG):
    """RLOO: r_i - 1 / (G - 1) * (sum of r_j over j != i); a group of one teaches nothing."""
    for rewards_G, found_G in zip(
        rewards_PG, advantages("none", *rewards_PG, baseline="leave_one_out"), strict=True
    ):
        values_G = rewards_G.astype(np.float64)
        expected_G = [
            own - np.delete(values_G, index).mean() if values_G.size > 1 else 0.0
            for index, own in enumerate(values_G)
        ]
        np.testing.assert_allclose(found_G, expected_G, rtol=1e-6, atol=1e-5)


@given(rewards_PG=groups)
def test_the_baseline_of_the_batch_normalises_over_all_completions(rewards_PG):
    """REINFORCE++: (r - mean over the batch) / standard deviation over the batch."""
    found_PG = advantages("batch_std", *rewards_PG, baseline="batch")
    together = np.concatenate(rewards_PG).astype(np.float64)
    expected = (together - together.mean()) / max(together.std(), 0.05)
    np.testing.assert_allclose(np.concatenate(found_PG), expected, rtol=1e-6, atol=1e-5)


def test_with_the_baseline_of_the_batch_groups_of_one_and_flat_groups_teach():
    assert advantages("none", [0], [1], [5], baseline="batch") == [[-2], [-1], [3]]
    flat_G, other_G = advantages("none", [0, 0], [1, 3], baseline="batch")
    assert (flat_G.tolist(), other_G.tolist()) == ([-1, -1], [0, 2])


def test_without_a_baseline_the_reward_itself_is_scaled():
    assert advantages("none", [0], [1, 3], baseline="none")[1].tolist() == [1, 3]
    (one,) = advantages("batch_std", [2], baseline="none")
    assert one.tolist() == [1]


@given(rewards_PG=groups)
def test_reinforce_pp_with_the_baseline_of_the_group_is_batch_std(rewards_PG):
    """Centred in the group, then normalised over the batch, whose mean is 0 by then."""
    centred = np.concatenate([r.astype(np.float64) - r.mean(dtype=np.float64) for r in rewards_PG])
    expected = (centred - centred.mean()) / max(centred.std(), 0.05)
    found_PG = advantages("batch_std", *rewards_PG)
    np.testing.assert_allclose(np.concatenate(found_PG), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("baseline", ["leave_one_out", "batch", "none"])
def test_no_groups_have_no_advantages_whatever_the_baseline(baseline):
    assert advantages("none", baseline=baseline) == []
    assert [a.tolist() for a in advantages("none", [], baseline=baseline)] == [[]]


@pytest.mark.parametrize("scale", ["group_std", "batch_std"])
def test_the_floor_bounds_the_advantages_of_nearly_equal_scores(scale):
    (nearly_equal_G,) = advantages(scale, [1.0, 1.0 + 1e-4], std_floor=0.05)
    np.testing.assert_allclose(np.abs(nearly_equal_G), 0.5e-4 / 0.05, rtol=1e-2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_is_refused_by_place(scale, bad):
    with pytest.raises(NonFiniteError, match=r"group 1, sample 2 is"):
        advantages(scale, [0, 1], [0, 1, bad])


def judged(kind: JudgeKind, *groups_PG: list[float]) -> list[JudgedGroup]:
    return [
        dataclasses.replace(make_judged(make_group(prompt, len(rewards)), rewards), judge=kind)
        for prompt, rewards in zip(make_prompts(len(groups_PG)), groups_PG, strict=True)
    ]


BY_RM = judged(JudgeKind.RM, [0.0, 6.0, 6.0], [1.0, 3.0])
BY_TESTS = judged(JudgeKind.EXECUTION, [0.0, 1.0], [0.0, 0.0, 1.0])


def test_each_judge_has_a_standard_deviation_of_its_own():
    cfg = AdvantageConfig(scale="batch_std", std_floor=0.05)
    mixed = [BY_RM[0], BY_TESTS[0], BY_RM[1], BY_TESTS[1]]
    result_PG = batch_advantages(mixed, cfg)
    for kind in (JudgeKind.RM, JudgeKind.EXECUTION):
        own = [a for a, group in zip(result_PG, mixed, strict=True) if group.judge is kind]
        assert np.sqrt(np.mean(np.concatenate(own) ** 2)) == pytest.approx(1.0)
    alone_PG = batch_advantages(BY_TESTS, cfg)
    for together_G, alone_G in zip((result_PG[1], result_PG[3]), alone_PG, strict=True):
        np.testing.assert_array_equal(together_G, alone_G)


def test_the_units_of_one_judge_change_nothing_for_either():
    cfg = AdvantageConfig(scale="batch_std", std_floor=0.05)
    louder = [dataclasses.replace(g, rewards_G=g.rewards_G * np.float32(10)) for g in BY_RM]
    for one_G, other_G in zip(
        batch_advantages([*BY_RM, *BY_TESTS], cfg),
        batch_advantages([*louder, *BY_TESTS], cfg),
        strict=True,
    ):
        np.testing.assert_allclose(one_G, other_G, rtol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("groups_P", [BY_RM, BY_TESTS, []], ids=["rm", "execution", "none"])
def test_with_one_judge_a_batch_is_scaled_as_a_whole(scale, groups_P):
    cfg = AdvantageConfig(scale=scale, std_floor=0.05)
    expected_PG = group_advantages([g.rewards_G for g in groups_P], cfg)
    for result_G, expected_G in zip(batch_advantages(groups_P, cfg), expected_PG, strict=True):
        np.testing.assert_array_equal(result_G, expected_G)


def of_judges(**rewards: Sequence[float]) -> JudgedGroup:
    """A group with these rewards by each judge, whose weights are 1, 2, ..."""
    size = len(next(iter(rewards.values())))
    judged = make_judged(make_group(make_prompts(1)[0], size), (0.0,) * size)
    parts = {
        name: Part(
            weight=float(number),
            scores_G=judged.scores_G,
            rewards_G=np.array(values, np.float32),
            judge=JudgeKind.OWN,
        )
        for number, (name, values) in enumerate(rewards.items(), start=1)
    }
    total = sum(part.weight * part.rewards_G for part in parts.values())
    return dataclasses.replace(judged, rewards_G=total, judge=JudgeKind.SUM, parts=parts)


def test_apart_each_judge_of_a_sum_counts_by_its_weight_and_not_by_its_scale():
    narrow, wide = (0.0, 0.1, 0.0, 0.1), (100.0, 0.0, 0.0, 100.0)
    cfg = AdvantageConfig(scale="group_std", std_floor=1e-6, apart=True)
    (found,) = batch_advantages([of_judges(a=narrow, b=wide)], cfg)
    np.testing.assert_allclose(found, [1.0, -1.0, -3.0, 3.0], rtol=1e-5)
    (together,) = batch_advantages(
        [of_judges(a=narrow, b=wide)], dataclasses.replace(cfg, apart=False)
    )
    np.testing.assert_allclose(together, [1.0, -1.0, -1.0, 1.0], atol=1e-2)


def test_apart_a_judge_that_cannot_tell_a_group_apart_adds_nothing_and_masked_ones_count_nowhere():
    group = of_judges(a=(0.0, 1.0, 9.0), b=(5.0, 5.0, 7.0))
    group = dataclasses.replace(group, masked_G=np.array([False, False, True]))
    cfg = AdvantageConfig(scale="group_std", std_floor=0.05, apart=True)
    (found,) = batch_advantages([group], cfg)
    np.testing.assert_allclose(found, [-1.0, 1.0, 0.0])


def test_apart_says_nothing_of_groups_with_one_judge():
    group = make_judged(make_group(make_prompts(1)[0], 2), (0.0, 1.0))
    cfg = AdvantageConfig(scale="batch_std", std_floor=0.05)
    plain, apart = (
        batch_advantages([group], one) for one in (cfg, dataclasses.replace(cfg, apart=True))
    )
    np.testing.assert_array_equal(plain, apart)
