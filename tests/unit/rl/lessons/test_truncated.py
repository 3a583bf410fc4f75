"""Completions that ran out of budget, from the judge's reward to the sample."""

import dataclasses

import numpy as np
import pytest

from rl.advantage import AdvantageConfig, batch_advantages
from rl.lessons.truncated import TruncationConfig, settle
from rl.metrics import batch_metrics, check_names
from rl.samples import build_samples
from rl.types import Finish
from tests.unit.rl.fakes import make_completion, make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

ENDS = [(Finish.STOP, 5), (Finish.LENGTH, 10), (Finish.ABORTED, 10), (Finish.STOP, 9)]
REWARDS = [1.0, 2.0, 3.0, 6.0]
NONE = AdvantageConfig(scale="none", std_floor=0.05)


def judged():
    (prompt,) = make_prompts(1)
    completions_G = tuple(
        dataclasses.replace(make_completion(prompt.id, index, num_tokens=size), finish=finish)
        for index, (finish, size) in enumerate(ENDS)
    )
    group = dataclasses.replace(make_group(prompt, 0), completions_G=completions_G)
    return make_judged(group, REWARDS)


def settled(kind, **options):
    return settle(judged(), TruncationConfig(kind=kind, max_tokens=10, **options))


def test_by_default_the_judges_reward_stands():
    given = judged()
    assert settle(given, TruncationConfig()) is given


def test_zero_is_for_what_ran_out_of_budget_and_not_for_what_was_given_up():
    found = settled("zero")
    assert found.rewards_G.tolist() == [1, 0, 3, 6]
    metrics = batch_metrics([found])
    assert metrics["reward/deducted_rate"] == 0.25
    assert metrics["reward/deducted_mean"] == 0.5
    assert metrics["reward/mean"] == 2.5


@pytest.mark.parametrize("keep_zero", [False, True])
def test_a_masked_completion_has_no_sample_and_counts_in_no_baseline(keep_zero):
    found = settled("mask")
    (advantages_G,) = batch_advantages([found], NONE)
    mean = (1 + 3 + 6) / 3
    np.testing.assert_allclose(advantages_G, [1 - mean, 0, 3 - mean, 6 - mean], rtol=1e-6)
    samples = build_samples([found], [advantages_G], keep_zero=keep_zero)
    assert [sample.sample_idx for sample in samples] == [0, 2, 3]
    assert batch_metrics([found])["reward/masked_rate"] == 0.25


def test_what_a_recipe_has_masked_stays_masked():
    before = dataclasses.replace(judged(), masked_G=np.array([1, 0, 0, 0], np.bool_))
    after = settle(before, TruncationConfig(kind="mask", max_tokens=10))
    assert after.taught_G.tolist() == [False, False, True, True]


def test_a_group_that_was_cut_off_as_a_whole_teaches_nothing():
    found = dataclasses.replace(judged(), masked_G=np.ones(4, np.bool_))
    advantages_PG = batch_advantages([found, judged()], NONE)
    assert advantages_PG[0].tolist() == [0, 0, 0, 0]
    assert len(build_samples([found], advantages_PG[:1], keep_zero=True)) == 0


def test_the_penalty_is_that_of_dapo_and_grows_over_the_last_tokens_of_the_budget():
    """R_length = ((L_max - L_cache) - |y|) / L_cache between its ends, 0 before, -1 at L_max."""
    found = settled("penalty", cache_tokens=4, penalty=2.0)
    expected = [0, 2.0 * (10 - 6) / 4, 0, 2.0 * (9 - 6) / 4]  # the third was given up
    np.testing.assert_allclose(np.array(REWARDS) - found.rewards_G, expected)
    metrics = batch_metrics([found])
    assert metrics["reward/deducted_rate"] == 0.5
    assert metrics["reward/deducted_mean"] == pytest.approx(sum(expected) / 4)


def test_metrics_are_registered_and_absent_where_nothing_is_done():
    for kind in ("zero", "mask"):
        check_names(batch_metrics([settled(kind)]))
    plain = batch_metrics([judged()])
    assert not {"reward/deducted_rate", "reward/masked_rate"} & plain.keys()
    assert plain["rollout/truncated_rate"] == 0.25
