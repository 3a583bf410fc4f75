"""The critic: what it learns, that it is a value, and that its storage is exact."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rl.lessons.critic import Critic, r_squared

pytestmark = pytest.mark.unit

EASY, HARD = "Return the sum of xs.", "Return the median of ys, sorted."


def taught(critic: Critic, passes: int = 200) -> Critic:
    rewards = np.array([1.0, 0.2])
    return critic.learned([EASY, HARD], rewards, lr=0.01, passes=passes)


def test_a_new_critic_expects_nothing_and_learns_what_problems_are_worth():
    new = Critic.new(8, seed=1)
    assert new.values([EASY, HARD]).tolist() == [0.0, 0.0]
    assert taught(new).values([EASY, HARD]) == pytest.approx([1.0, 0.2], abs=0.02)
    assert new.values([EASY]).tolist() == [0.0]  # learning gives another critic


def test_a_problem_of_known_words_is_expected_like_those():
    critic = taught(Critic.new(16, seed=0))
    easy, hard = critic.values(["Return the sum of ys.", "Return the median of xs, sorted."])
    assert easy > hard + 0.3


def test_a_stored_critic_is_the_same_and_learns_the_same():
    critic = taught(Critic.new(4, seed=3), passes=3)
    again = Critic.read(json.loads(json.dumps(critic.stored())))
    assert again.stored() == critic.stored()
    assert taught(again, 5).stored() == taught(critic, 5).stored()
    assert Critic.new(4, seed=4).stored() != Critic.new(4, seed=3).stored()


def test_no_rewards_teach_nothing():
    critic = Critic.new(4, seed=0)
    assert critic.learned([], np.array([]), lr=0.1, passes=5) is critic


def test_the_first_update_is_one_of_adam_against_the_finite_difference_of_the_squared_error():
    critic = taught(Critic.new(3, seed=2), passes=5)
    fresh = Critic.read(
        critic.stored()
        | {
            "num_updates": 0,
            "first": [0.0] * critic.first.size,
            "second": [0.0] * critic.first.size,
        }
    )
    rewards = np.array([0.3, 0.9])

    def half_mean_square(weights: np.ndarray) -> float:
        values = Critic.read(fresh.stored() | {"weights": weights}).values([EASY, HARD])
        return float(np.square(values - rewards).mean() / 2)

    found = fresh.learned([EASY, HARD], rewards, lr=1.0, passes=1).first / 0.1
    places = [*np.flatnonzero(found)[:5], *range(found.size - 7, found.size)]
    for place in places:
        step = np.zeros(found.size)
        step[place] = 1e-6
        slope = half_mean_square(fresh.weights + step) - half_mean_square(fresh.weights - step)
        assert found[place] == pytest.approx(slope / 2e-6, rel=1e-4, abs=1e-9)


def test_equal_rewards_have_no_variance_to_explain():
    assert r_squared(np.array([1.0, 1.0]), np.array([0.0, 1.0])) is None
    assert r_squared(np.array([]), np.array([])) is None
    assert r_squared(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == -3.0
