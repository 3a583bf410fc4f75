"""What a language model's verdicts are worth over N, and how often there were none."""

from __future__ import annotations

import numpy as np
import pytest

from reward.select.verdicts import Verdicts, figures_of_verdicts

pytestmark = pytest.mark.unit

VALID = np.array([True, False, True, True])


def verdicts(**changes: object) -> Verdicts:
    values: dict[str, object] = {
        "problem_id": "p",
        "codes": "",
        "scores": None,
        "chosen": None,
        "num_requests": 6,
        "num_unread": 1,
        "num_choices": 2,
        "num_undecided": 1,
        "seconds": None,
    }
    return Verdicts(**(values | changes))  # pyright: ignore[reportArgumentType]


def curve(found: Verdicts, right: int) -> list[float]:
    return found.curve(VALID, np.arange(4) == right, (1, 2, 4))


def test_a_score_each_is_a_ranking_whose_curve_is_exact() -> None:
    scored = verdicts(scores=[0.2, None, 0.9, 0.4])
    assert curve(scored, 2) == [0.25, 0.5, 1.0]
    assert curve(scored, 0)[-1] == 0.0


@pytest.mark.parametrize(("others", "rank"), [((0.9, 0.2), 1), ((0.1, 0.5), 1)])
def test_what_could_not_be_read_stands_where_the_mean_of_the_others_is(
    others: tuple[float, float], rank: int
) -> None:
    unread = verdicts(scores=[None, None, *others])
    assert curve(unread, 0)[1] == pytest.approx((3 - rank) / 6)  # of the pairs it wins so many
    assert curve(unread, 1) == [0.25, 0.0, 0.0]  # no program comes last


def test_without_any_score_the_first_program_is_taken() -> None:
    assert curve(verdicts(scores=[None] * 4), 0)[-1] == 1.0


def test_lists_give_a_value_of_the_first_n_samples() -> None:
    chosen = verdicts(chosen={"2": 0, "4": 3})
    assert curve(chosen, 3) == [0.25, 0.0, 1.0]
    assert curve(chosen, 0) == [0.25, 1.0, 0.0]


def test_figures_count_answers_and_choices() -> None:
    figures = figures_of_verdicts([verdicts(), verdicts(num_requests=4, num_unread=0)])
    assert figures == {
        "requests": 10,
        "requests_per_choice": 5.0,
        "unread": 1,
        "choices": 4,
        "undecided": 2,
    }
