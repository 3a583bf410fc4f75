"""CURE: what a test earns, by the formulas of the paper, and what a step of it asks and learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from conf.recipes import CureArgs
from rl.recipes.cure import (
    Cure,
    chosen_by_tests,
    figures_of_tests,
    length_regularised,
    rewards_of_tests,
)
from rl.types import Extraction, JudgedGroup, Prompt, Reason, Score, Verdict
from tests.unit.rl.fakes import group_of_tests, make_group, make_judged, make_prompts, setup

pytestmark = pytest.mark.unit

# Programs: right, right, wrong, wrong. Tests: right and telling; right and dull; wrong, passed by
# one wrong program; wrong, passed by none; right for one of the right programs only.
PASSED = np.array(
    [
        [1, 1, 0, 0, 1],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 1],
        [0, 1, 0, 0, 1],
    ],
    np.bool_,
)
RIGHT = np.array([True, True, False, False])
ALL = np.ones(5, np.bool_)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean", [1.0, 0.0, -0.5, 0.0, -1.0]),
        ("strict", [1.0, 0.0, -1.0, 0.0, -1.0]),
        ("sign", [1.0, 1.0, -1.0, -1.0, -1.0]),
    ],
)
def test_the_sign_is_by_right_programs_and_the_size_by_wrong_ones(kind, expected):
    found = rewards_of_tests(PASSED, RIGHT, ALL, kind, unreadable_lowest=True)
    assert found.tolist() == expected


def test_without_a_right_program_nothing_is_said_and_without_a_wrong_one_the_sign_alone():
    nobody = rewards_of_tests(PASSED, ~RIGHT & False, ALL, "mean", unreadable_lowest=True)
    assert nobody.tolist() == [0.0] * 5
    all_right = rewards_of_tests(PASSED[:2], RIGHT[:2], ALL, "mean", unreadable_lowest=True)
    assert all_right.tolist() == [1.0, 1.0, -1.0, -1.0, -1.0]


@pytest.mark.parametrize(("lowest", "expected"), [(True, -1.0), (False, 0.0)])
def test_a_test_that_cannot_be_read_is_the_worst_or_by_cures_rule_as_good_as_a_dull_one(
    lowest, expected
):
    readable = np.array([1, 1, 1, 0, 1], np.bool_)
    found = rewards_of_tests(PASSED, RIGHT, readable, "mean", unreadable_lowest=lowest)
    assert found[3] == expected


def test_regularised_lengths_prefer_the_short_and_both_sides_weigh_the_same():
    rewards = np.array([1, 0.5, 1, -1, -0.2], np.float32)
    found = length_regularised(rewards, np.array([10, 20, 40, 5, 90], np.int32), (1, 1000))
    assert found[0] > found[1] > found[2]
    assert found[3] == found[4] == found[2]  # all the lowest: 20 - 40
    assert found.sum() == pytest.approx(0.0, abs=1e-6)
    assert found.std() == pytest.approx(1.0, abs=1e-6)


def published(rewards: list[float], lengths: list[int], low: int, high: int) -> list[float]:
    """CURE's rule, written apart: sign of the z-score, lengths, equal masses, spread."""
    z = [r - sum(rewards) / len(rewards) for r in rewards]
    if all(r == 1 for r in rewards):
        z = rewards
    good = sorted(n for n, value in zip(lengths, z, strict=True) if value > 1e-6)
    if not good:
        return [0.0] * len(z)
    middle = (good[(len(good) - 1) // 2] + good[len(good) // 2]) / 2
    bound = max(min(middle, high), low)
    own = [bound - n if value > 1e-6 else 0.0 for n, value in zip(lengths, z, strict=True)]
    shaped = [min(own) if value < -1e-6 else x for x, value in zip(own, z, strict=True)]
    if good[0] == good[-1]:
        shaped = [(value > 1e-6) - (value < -1e-6) for value in z]
    up, down = sum(x for x in shaped if x > 0), -sum(x for x in shaped if x < 0)
    if not (up and down):
        return [0.0] * len(z)
    balanced = [x * down / up if x > 0 else x for x in shaped]
    mean = sum(balanced) / len(balanced)
    spread = (sum((x - mean) ** 2 for x in balanced) / len(balanced)) ** 0.5
    return [x / spread for x in balanced]


@pytest.mark.parametrize(
    "rewards",
    [
        [1.0, 0.5, 1.0, -1.0, -0.2],
        [0.0, -0.5, 0.0, -1.0, -0.5],  # dull right tests are above the mean
        [0.0, 0.5, 0.0, 1.0, 0.5],  # harmless wrong ones are below it
        [1.0] * 5,  # all are as good as can be: length alone counts
        [0.3] * 5,
    ],
)
@pytest.mark.parametrize("lengths", [[10, 20, 40, 5, 90], [7, 7, 7, 7, 7]])
@pytest.mark.parametrize("bounds", [(1, 1000), (30, 50), (1000, 8000)])
def test_regularised_rewards_are_those_of_the_published_rule(rewards, lengths, bounds):
    found = length_regularised(np.array(rewards, np.float32), np.array(lengths, np.int32), bounds)
    assert found.tolist() == pytest.approx(published(rewards, lengths, *bounds), abs=1e-5)
    assert found.any() or bounds == (1000, 8000) or rewards == [0.3] * 5 or lengths == [7] * 5


def test_programs_are_regularised_beside_the_tests_where_length_counts():
    problem = make_prompts(1)[0]
    programs = programs_of(problem, [1.0, 1.0, 0.0, 0.0], [True, True, False, False])
    completions = [
        dataclasses.replace(one, token_ids=np.arange(n, dtype=np.int32))
        for one, n in zip(programs.group.completions_G, (3, 9, 3, 9), strict=True)
    ]
    group = dataclasses.replace(programs.group, completions_G=tuple(completions))
    bundle = [dataclasses.replace(programs, group=group), group_of_tests(problem, PASSED)]
    graded = cure(regularise_length=True, min_length_tokens=1).grade(bundle)
    short, long, *wrong = graded[0].rewards_G.tolist()
    assert short > 0 > long and wrong == [long, long]
    assert graded[1].rewards_G.tolist() != cure().grade(bundle)[1].rewards_G.tolist()


def programs_of(
    problem: Prompt, scores: Sequence[float | None], passed: Sequence[bool] | None
) -> JudgedGroup:
    judged = make_judged(make_group(problem, len(scores)), [s or 0.0 for s in scores], passed)
    return dataclasses.replace(
        judged,
        scores_G=tuple(
            dataclasses.replace(score, value=value)
            for score, value in zip(judged.scores_G, scores, strict=True)
        ),
    )


def cure(**args: object) -> Cure:
    def request(problem: Prompt) -> Prompt:
        return dataclasses.replace(problem, tests=None)

    return Cure(setup(), CureArgs(**args), request)  # pyright: ignore[reportArgumentType]  # by name


def test_a_problem_is_asked_for_programs_and_for_tests_under_ids_of_their_own():
    asks = cure(num_tests=5).ask(1, make_prompts(2), {})
    assert [(ask.prompt.id, ask.task, ask.sampling.group_size) for ask in asks] == [
        ("p0", "code", 3),
        ("p0#test", "test", 5),
        ("p1", "code", 3),
        ("p1#test", "test", 5),
    ]


def test_right_are_the_programs_that_pass_the_problems_tests_where_these_ran():
    problem = make_prompts(1)[0]
    bundle = [
        programs_of(problem, [0.0, 0.0, 9.0, 9.0], [True, True, False, False]),
        group_of_tests(problem, PASSED),
    ]
    _, graded = cure().grade(bundle)
    assert graded.rewards_G.tolist() == [1.0, 0.0, -0.5, 0.0, -1.0]


def test_elsewhere_the_better_half_by_the_reward_model_counts_as_right():
    problem = make_prompts(1)[0]
    bundle = [programs_of(problem, [2.0, 1.5, -1.0, None], None), group_of_tests(problem, PASSED)]
    _, graded = cure().grade(bundle)
    # Right is the first alone: 1.5 is the median. The last has no score, and is not known.
    expected = rewards_of_tests(
        PASSED[:3], np.array([1, 0, 0], np.bool_), ALL, "mean", unreadable_lowest=True
    )
    assert graded.rewards_G.tolist() == expected.tolist()


@pytest.mark.parametrize("verdict", [Verdict.NO_CODE, Verdict.UNJUDGED, None])
def test_what_is_not_known_to_be_wrong_makes_no_test_worth_more(verdict: Verdict | None):
    """A dull test, which a wrong program passes, stays dull beside answers without code."""
    problem = make_prompts(1)[0]
    passed = None if verdict is None else [True, False, False, False]
    programs = programs_of(problem, [2.0, 1.0, None, None], passed)
    scores_G = list(programs.scores_G)
    codes_G = list(programs.extractions_G)
    for index in (2, 3):
        scores_G[index] = Score(value=None, verdict=verdict)
        if verdict is not Verdict.UNJUDGED:
            codes_G[index] = Extraction(reason=Reason.NO_BLOCK)
    programs = dataclasses.replace(programs, scores_G=tuple(scores_G), extractions_G=tuple(codes_G))
    tests = group_of_tests(problem, np.array([[1, 1], [1, 0], [0, 0], [0, 0]], np.bool_))
    _, graded = cure().grade([programs, tests])
    assert graded.rewards_G.tolist() == [0.0, 1.0]
    assert figures_of_tests([programs, tests])["telling"] == 0.5


def test_right_and_telling_tests_are_counted_of_the_same_problems_too():
    first, second = make_prompts(2)
    groups = [
        programs_of(first, [0.0] * 4, [True, True, False, False]),
        group_of_tests(first, PASSED),
        programs_of(second, [0.0] * 2, [True, True]),  # no wrong one: no test can tell
        group_of_tests(second, np.ones((2, 5), np.bool_)),
    ]
    figures = figures_of_tests(groups)
    assert figures["right"] == pytest.approx(7 / 10)
    assert figures["right_beside_wrong"] == pytest.approx(2 / 5)
    assert figures["telling"] == pytest.approx(1 / 5)


def test_programs_keep_their_rewards_and_both_tasks_are_learned_in_one_update_or_in_two():
    problem = make_prompts(1)[0]
    bundle = [
        programs_of(problem, [0.0, 1.0, 2.0, 3.0], [True, True, False, False]),
        group_of_tests(problem, PASSED),
    ]
    graded = cure().grade(bundle)
    assert graded[0] is bundle[0]
    for separate, sizes in ((False, [9]), (True, [4, 5])):
        recipe = cure(separate_updates=separate)
        lesson = recipe.teach(1, graded, {})
        assert recipe.max_updates == len(sizes)
        assert [len(update.samples) for update in lesson.updates] == sizes


def test_marks_say_what_tests_are_worth_and_how_well_they_choose():
    problem = make_prompts(1)[0]
    groups = [
        programs_of(problem, [0.0] * 4, [True, True, False, False]),
        group_of_tests(problem, PASSED, num_unreadable=1),
    ]
    marks = cure().mark(groups)
    assert marks["eval/test_readable"] == pytest.approx(4 / 5)
    assert marks["eval/test_right"] == pytest.approx(2 / 5)
    assert marks["eval/test_telling"] == pytest.approx(1 / 5)
    # Votes are 3, 2, 3, 2: a right and a wrong program share the choice.
    assert marks["eval/best_of_by_tests"] == chosen_by_tests(groups) == pytest.approx(0.5)
