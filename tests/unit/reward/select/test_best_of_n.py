"""Figures of best-of-N: accuracy over N with intervals, and latency from the stages waited for."""

from __future__ import annotations

import numpy as np
import pytest

from reward.select.best_of_n import (
    METHODS,
    Evidence,
    SelectionSettings,
    accuracy_figures,
    curves,
    figures_of_tests,
    latency,
    latency_figures,
    sizes_up_to,
)
from reward.select.verdicts import Verdicts

pytestmark = pytest.mark.unit

SETTINGS = SelectionSettings(sizes=(1, 2, 4), staged_top_k=2, staged_tests=1, seed=0)
SECONDS = {
    "score": 0.01,
    "generate": 1.0,
    "execute": 0.2,
    "staged_generate": 0.3,
    "staged_execute": 0.04,
    "own_tests": 0.5,
}


def evidence(**changes: object) -> Evidence:
    values = {
        "problem_id": "p",
        "codes": "",
        "scores": [0.1, None, 3.0, 2.0],
        "tests": ["assert f(1) == 1", "assert f(1) == 2"],
        "num_asked": 4,
        "num_test_tokens": 40,
        "passed": ["10", "00", "10", "01"],
        "outputs": [[0], [-1], [0], [1]],
        "num_programs": 3,
        "seconds": SECONDS,
    }
    return Evidence(**(values | changes))  # pyright: ignore[reportArgumentType]


def test_every_method_has_a_curve_that_ends_with_its_own_choice() -> None:
    correct = np.array([False, False, True, False])
    found = curves(evidence(), correct, SETTINGS)
    assert [*found] == [name for name in METHODS if name != "judge"]
    assert found["random"] == [0.25] * 3
    assert found["own_tests"] == [0.25, 0.5, 1.0]
    # Of the 6 pairs 3 have the right program, which has the highest score.
    assert found["reward_model"] == [0.25, 0.5, 1.0]
    assert {name: curve[-1] for name, curve in found.items() if name != "random"} == {
        "mbr_exec": 0.0,  # programs 0 and 2 agree; the first is wrong
        "codet": 0.0,
        "generated_tests": 0.0,
        "staged": 1.0,
        "reward_model": 1.0,
        "own_tests": 1.0,
    }


def test_without_readable_tests_the_first_program_is_taken() -> None:
    correct = np.array([True, False, False, False])
    none = evidence(tests=[], passed=["", "", "", ""], outputs=[[], [], [], []])
    found = curves(none, correct, SETTINGS)
    assert [found[name][-1] for name in ("generated_tests", "codet", "mbr_exec")] == [1.0] * 3
    assert found["staged"][-1] == 0.0  # that of the reward model


def test_a_problem_without_any_program_is_a_failure_of_every_method() -> None:
    none = evidence(scores=[None] * 4, passed=["00"] * 4, outputs=[[-1]] * 4)
    found = curves(none, np.zeros(4, dtype=bool), SETTINGS)
    assert {value for curve in found.values() for value in curve} == {0.0}


def test_figures_are_means_over_problems_with_intervals_and_the_distance_to_the_oracle() -> None:
    right = np.array([False, False, True, False])
    wrong = np.zeros(4, dtype=bool)
    problems = [curves(evidence(), c, SETTINGS) for c in [right] * 6 + [wrong] * 2]
    figures = accuracy_figures(problems, SETTINGS)
    reward_model = figures["reward_model"]
    assert reward_model["accuracy"] == reward_model["curve"]["4"] == 0.75
    assert reward_model["curve"]["2"] == pytest.approx(0.375)
    low, high = reward_model["interval"]
    assert low < 0.75 < high and reward_model["curve_intervals"]["4"] == [low, high]
    assert reward_model["below_own_tests"] == 0.0
    assert reward_model["below_own_tests_interval"] == [0.0, 0.0]
    # The same resamples for both: the distance is surer than either of the two.
    assert figures["codet"]["below_own_tests"] == 0.75
    assert figures["codet"]["below_own_tests_interval"] == pytest.approx([low, high])


def test_a_latency_is_the_sum_of_the_stages_that_a_selection_waits_for() -> None:
    methods = [name for name in METHODS if name != "judge"]
    whole = {name: latency(SECONDS, name, with_generation=True) for name in methods}
    assert whole == pytest.approx(
        {
            "random": 0.0,
            "mbr_exec": 1.2,
            "codet": 1.2,
            "generated_tests": 1.2,
            "staged": 0.35,
            "reward_model": 0.01,
            "own_tests": 0.5,
        }
    )
    given = {name: latency(SECONDS, name, with_generation=False) for name in methods}
    assert (given["codet"], given["staged"]) == pytest.approx((0.2, 0.05))
    assert all(given[name] == whole[name] for name in ("random", "reward_model", "own_tests"))


def test_latencies_are_quantiles_over_problems_and_ratios_to_the_reward_model() -> None:
    problems = [{name: scale * value for name, value in SECONDS.items()} for scale in (1, 2, 3)]
    figures = latency_figures(problems)
    assert figures["reward_model"]["latency_s"] == pytest.approx({"p50": 0.02, "p95": 0.029})
    assert figures["generated_tests"]["latency_s"]["p50"] == pytest.approx(2.4)
    assert figures["generated_tests"]["slower_than_rm"]["p50"] == pytest.approx(120)
    assert figures["generated_tests"]["slower_than_rm_without_generation"]["p50"] == pytest.approx(
        20
    )


def test_a_language_model_is_a_method_where_one_was_asked() -> None:
    right = np.array([False, False, True, False])
    said = Verdicts(
        problem_id="p",
        codes="",
        scores=None,
        chosen={"2": 0, "4": 2},
        num_requests=3,
        num_unread=0,
        num_choices=2,
        num_undecided=0,
        seconds=None,
    )
    found = curves(evidence(), right, SETTINGS, said)
    assert [*found] == [*METHODS] and found["judge"] == [0.25, 0.0, 1.0]
    assert accuracy_figures([found], SETTINGS)["judge"]["below_own_tests"] == 0.0
    figures = latency_figures([SECONDS | {"judge": 0.6}])
    assert [*figures] == [*METHODS]
    assert figures["judge"]["latency_s"]["p50"] == pytest.approx(0.6)
    assert figures["judge"]["slower_than_rm"]["p50"] == pytest.approx(60)
    assert "judge" not in latency_figures([SECONDS])


def test_a_generated_test_is_right_when_every_right_program_passes_it() -> None:
    correct = [np.array([True, False, True, False]), np.zeros(4, dtype=bool)]
    figures = figures_of_tests([evidence(), evidence()], correct)
    assert figures == {
        "asked": 8,
        "read": 4,
        "right": 0.5,  # of the first problem's two; the second has no program that could tell
        "tokens_per_test": 10.0,
        "programs_run": 6,
    }
    assert figures_of_tests([evidence()], correct[1:])["right"] is None


def test_sizes_are_powers_of_two_and_all() -> None:
    assert sizes_up_to(1) == (1,)
    assert sizes_up_to(16) == (1, 2, 4, 8, 16)
    assert sizes_up_to(24) == (1, 2, 4, 8, 16, 24)
