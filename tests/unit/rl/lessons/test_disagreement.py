"""What models disagree on counts for less, and never for less than the lowest of them says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rl.lessons.disagreement import disagreement, penalty
from rl.types import JudgeKind, Part, Score

pytestmark = pytest.mark.unit


def parts(
    *rewards: Sequence[float], weights: Sequence[float] = (), judge: JudgeKind = JudgeKind.RM
) -> dict[str, Part]:
    given = weights or [1.0] * len(rewards)
    return {
        f"m{index}": Part(
            weight=given[index],
            scores_G=tuple(Score(value=value) for value in values),
            rewards_G=np.array(values, np.float32),
            judge=judge,
        )
        for index, values in enumerate(rewards)
    }


def worth(given: dict[str, Part], coef: float) -> list[float]:
    total_G = sum(part.weight * part.rewards_G.astype(np.float64) for part in given.values())
    return (total_G - penalty(given, coef)).tolist()


def test_with_equal_weights_the_models_are_worth_their_mean_less_coef_deviations() -> None:
    given = parts([0.5, 0.9, 0.2], [0.5, 0.5, 0.4], [0.5, 0.7, 0.6], weights=[1 / 3] * 3)
    rewards = np.array([[0.5, 0.9, 0.2], [0.5, 0.5, 0.4], [0.5, 0.7, 0.6]], np.float32)
    expected = rewards.mean(axis=0) - 0.5 * rewards.std(axis=0)
    assert worth(given, 0.5) == pytest.approx(expected.tolist())
    found = disagreement(given)
    assert found is not None and found.tolist() == pytest.approx(rewards.std(axis=0).tolist())


def test_no_coefficient_takes_more_than_leaves_all_models_at_the_lowest() -> None:
    given = parts([0.9, 0.0], [0.1, 0.0], weights=[2.0, 1.0])
    assert worth(given, 1e6) == pytest.approx([0.3, 0.0])
    # What is no program earns 0 of every model, and stays at or below each that is one.
    assert worth(given, 1e6)[0] > worth(given, 1e6)[1]


def test_a_program_that_models_agree_on_passes_one_that_they_do_not() -> None:
    given = parts([0.6, 1.0], [0.6, 0.4], weights=[0.5, 0.5])
    assert worth(given, 0.0)[0] < worth(given, 0.0)[1]
    assert worth(given, 1.0)[0] > worth(given, 1.0)[1]


def test_judges_that_are_no_models_neither_agree_nor_disagree() -> None:
    one = parts([0.9, 0.1]) | {"form": parts([0.0, 1.0], judge=JudgeKind.OWN)["m0"]}
    assert disagreement(one) is None and penalty(one, 1.0).tolist() == [0.0, 0.0]
    two = one | {"served": parts([0.5, 0.1], judge=JudgeKind.GENERATIVE)["m0"]}
    found = disagreement(two)
    assert found is not None and found.tolist() == pytest.approx([0.2, 0.0])
    assert disagreement({}) is None and penalty({}, 1.0).size == 0
