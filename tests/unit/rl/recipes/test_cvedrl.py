"""CVeDRL: suites of known solutions, what they earn, and what is said of them."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from conf.errors import UserError
from conf.recipes import CvedrlArgs
from rl.recipes.cvedrl import Cvedrl, difficulty_of, reward_of, solution_of
from rl.types import Evidence, JudgedGroup, JudgeKind, Message, Prompt, Suite, Task
from tests.unit.rl.fakes import make_group, make_judged, setup

pytestmark = pytest.mark.unit

EASY = "def f(x):\n    return x"
HARD = "def f(x, y):\n    if x > y and x > 3:\n        return x * y - x\n    return y - x // y"


def request(problem: Prompt, code: str, num: int) -> Prompt:
    return Prompt(id=f"{problem.id}#suite", messages=(Message("user", f"{num}: {code}"),))


def cvedrl(**args: object) -> Cvedrl:
    return Cvedrl(setup(), CvedrlArgs(**args), request)  # pyright: ignore[reportArgumentType]


def problem(code: str = EASY, entry_point: str | None = "f") -> Prompt:
    return Prompt(
        id="p0",
        messages=(Message("user", "Do."),),
        entry_point=entry_point,
        meta=json.dumps({"solution": code}),
    )


def suite(num: int = 2, agreeing: int = 2, coverage: float = 1.0, killed: float = 0.0) -> Suite:
    return Suite(num_tests=num, num_agreeing=agreeing, coverage=coverage, killed=killed)


def answered(recipe: Cvedrl, suites: list[Suite], code: str = EASY) -> JudgedGroup:
    (ask,) = recipe.ask(1, [problem(code)], {})
    judged = make_judged(make_group(ask.prompt, len(suites)), [0.0] * len(suites))
    return dataclasses.replace(
        judged,
        group=dataclasses.replace(judged.group, ask=ask),
        judge=JudgeKind.SUITE,
        evidence=Evidence(suites_G=tuple(suites)),
    )


def test_tests_are_asked_of_the_known_solution():
    recipe = cvedrl(num_tests=3)
    (ask,) = recipe.ask(1, [problem()], {})
    assert (ask.task, ask.prompt.question) == (Task.SUITE, f"3: {EASY}")
    assert ask.given is not None and (ask.given.code, ask.given.num_tests) == (EASY, 3)
    assert [a.task for a in recipe.exam([problem()], setup().sampling)] == [Task.CODE, Task.SUITE]


@pytest.mark.parametrize(
    "bare", [problem(entry_point=None), problem("def f(:"), Prompt(id="p0", messages=())]
)
def test_a_problem_without_a_program_to_test_is_refused_by_name(bare: Prompt):
    with pytest.raises(UserError, match=r"recipe=cvedrl: problem p0 has no entry_point, or no"):
        solution_of(bare)


def test_agreement_alone_tells_right_from_wrong_from_unreadable():
    (graded,) = cvedrl(reward="agreement").grade(
        [answered(cvedrl(), [suite(), suite(coverage=0.1), suite(agreeing=1), suite(0, 0)])]
    )
    assert graded.rewards_G.tolist() == [1.0, 1.0, -1.0, -3.0]


def test_coverage_grows_the_reward_of_right_suites_only():
    args = CvedrlArgs(reward="coverage")
    rewards = [reward_of(suite(coverage=c), args, 0.5) for c in (0.0, 0.5, 1.0)]
    assert rewards[0] == 0.0 and rewards[2] == 1.0
    assert rewards[1] == pytest.approx((math.exp(1.5) - 1) / (math.exp(3) - 1))
    assert reward_of(suite(agreeing=1, coverage=1.0), args, 0.5) == -1.0


def test_a_difficult_program_earns_more_and_costs_less():
    args = CvedrlArgs()
    assert 0 <= difficulty_of(EASY) < difficulty_of(HARD) <= 1
    assert reward_of(suite(), args, 0.4) == pytest.approx(1.4)
    assert reward_of(suite(agreeing=0), args, 0.4) == pytest.approx(-1.6)
    assert difficulty_of("") == difficulty_of("# nothing") == 0.0


def test_a_wrong_suite_always_earns_less_than_a_right_one_and_more_than_an_unreadable_one():
    for args in (CvedrlArgs(reward=kind) for kind in ("agreement", "coverage", "difficulty")):
        for difficulty in (0.0, 0.5, 1.0):
            right = reward_of(suite(coverage=0.0), args, difficulty)
            wrong = reward_of(suite(agreeing=1), args, difficulty)
            assert right > wrong > reward_of(suite(0, 0), args, difficulty)


def test_asserts_that_cannot_be_read_cost_their_share_of_the_suite():
    for args in (CvedrlArgs(killed_weight=1.0), CvedrlArgs(reward="agreement")):
        one, nothing = suite(1, 1, killed=0.5), reward_of(suite(0, 0), args, 0.5)
        full = reward_of(one, args, 0.5)
        for num in (0, 1, 3):
            found = reward_of(dataclasses.replace(one, num_unread=num), args, 0.5)
            assert found == pytest.approx((full + num * nothing) / (1 + num))


def test_mutants_count_only_where_they_are_asked_for():
    group = answered(cvedrl(), [suite(killed=0.5), suite(killed=0.0)])
    (plain,) = cvedrl(reward="coverage").grade([group])
    (honest,) = cvedrl(reward="coverage", killed_weight=2.0).grade([group])
    np.testing.assert_allclose(honest.rewards_G - plain.rewards_G, [1.0, 0.0])


def test_the_figures_are_of_right_suites_where_they_must_be():
    recipe = cvedrl()
    group = answered(
        recipe,
        [
            suite(coverage=0.5, killed=0.25),
            suite(4, 3, coverage=1.0),
            suite(0, 0, 0.0),
            dataclasses.replace(suite(coverage=1.0, killed=0.75), num_unread=2),
        ],
    )
    (graded,) = recipe.grade([group])
    lesson = recipe.teach(1, [graded], {})
    assert {n.removeprefix("task/suite/"): v for n, v in lesson.metrics.items()} == {
        "readable": 0.75,
        "right": 0.5,
        "unread": 1.5 / 4,
        "num_tests": 2.0,
        "tests_right": 7 / 8,
        "coverage": 0.75,
        "killed": 0.5,
    }
    assert len(lesson.updates[0].samples) == 4
    assert recipe.mark([graded])["eval/suite_coverage"] == 0.75
    assert recipe.mark([]) == {}


def test_suites_that_nobody_ran_are_an_error():
    group = dataclasses.replace(answered(cvedrl(), [suite()]), evidence=Evidence())
    with pytest.raises(ValueError, match="p0#suite: the suites were not run on a program"):
        cvedrl().grade([group])
