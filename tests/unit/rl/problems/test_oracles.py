"""Oracles of minipy say what right programs return and stored tests expect, from metadata alone."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from conf.errors import DataError
from conf.schema import ProblemLevel
from rl.problems import branchy, minipy
from rl.problems.levels import make_prompts
from rl.problems.oracles import has_oracle, right_output
from rl.types import Prompt

pytestmark = pytest.mark.unit

LEVELS: tuple[ProblemLevel, ...] = ("flat", "branchy")
NUM_PROBLEMS = 300
_RAISES = (ValueError, IndexError)


@cache
def compiled(code: str) -> Any:
    """The function of a program. Only programs of this generator are run here."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names[minipy.ENTRY_POINT]


def returned(code: str, xs: list[int]) -> object:
    try:
        return compiled(code)(xs)
    except _RAISES:
        return None


def right_program(problem: Prompt, rng: random.Random) -> str:
    level = branchy if "level" in json.loads(problem.meta) else minipy
    return level.Spec.of(problem).program(rng)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_oracle_right_programs_and_stored_tests_agree(
    level: ProblemLevel, split: minipy.Split
) -> None:
    rng = random.Random(0)
    for problem in make_prompts(level, split, NUM_PROBLEMS, seed=5):
        blind = replace(problem, tests=None, messages=())
        for case in json.loads(problem.tests or ""):
            assert right_output(blind, case["input"]) == case["output"], problem.question
        code = right_program(problem, rng)
        for _ in range(10):
            xs = [rng.randint(-20, 40) for _ in range(rng.randrange(9))]
            assert right_output(blind, [xs]) == returned(code, xs), (problem.question, xs)


@pytest.mark.parametrize("level", LEVELS)
def test_an_oracle_knows_a_problem_by_its_metadata_alone(level: ProblemLevel) -> None:
    """Two problems of one combination differ in their constants."""
    problems = make_prompts(level, "train", NUM_PROBLEMS, seed=0)
    lists = [[*range(-20, 41)], [9], [2, 3], [-4, 8], [7, -6, 5]]
    differ = 0
    for one, other in pairwise(problems):
        taken = replace(one, meta=other.meta)
        assert [right_output(taken, [xs]) for xs in lists] == [
            right_output(other, [xs]) for xs in lists
        ]
        differ += any(right_output(taken, [xs]) != right_output(one, [xs]) for xs in lists)
    assert differ > NUM_PROBLEMS * 0.9


def test_a_problem_of_which_no_constants_are_known_has_no_oracle_and_says_so() -> None:
    (problem,) = make_prompts("flat", "eval", 1, 0)
    combination = json.loads(problem.meta)["combination"]
    for other in (
        replace(problem, meta=json.dumps({"combination": combination})),
        replace(problem, source="synthetic"),
        replace(problem, meta="{}"),
    ):
        assert not has_oracle(other)
        with pytest.raises(DataError, match=r"constants.*make the problems anew"):
            right_output(other, [[1]])


@pytest.mark.parametrize("args", [[], [1], [[1], [2]], [[1.5]], [[True]], ["a"]])
def test_other_arguments_than_a_list_of_integers_are_refused(args: list[object]) -> None:
    (problem,) = make_prompts("flat", "eval", 1, 0)
    with pytest.raises(DataError, match="one list of integers"):
        right_output(problem, args)
