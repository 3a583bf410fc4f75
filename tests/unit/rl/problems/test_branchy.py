"""The level branchy: right programs pass, each way is taken or left out on purpose, and so on."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from rl.problems import branchy, levels, minipy
from rl.problems.branchy import Spec
from rl.types import Prompt

pytestmark = pytest.mark.unit


def ways(problem: Prompt) -> set[int]:
    cases: list[dict[str, Any]] = json.loads(problem.tests or "")
    return {Spec.of(problem).way(case["input"][0]) for case in cases}


def run(code: str, call: str) -> object:
    names: dict[str, Any] = {}
    exec(code, names)
    return eval(call, names)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_spelling_of_a_right_program_passes_its_tests(split: minipy.Split) -> None:
    for index, problem in enumerate(branchy.make_prompts(split, 60, 3)):
        code = Spec.of(problem).program(random.Random(index))
        for program in (code, json.loads(problem.meta)["solution"]):
            for case in json.loads(problem.tests or ""):
                assert run(program, f"f({case['input'][0]})") == case["output"]


def test_what_a_problem_is_made_of_can_be_read_from_it() -> None:
    for problem in branchy.make_prompts("train", 20, 0):
        assert Spec.of(problem).question == problem.question


def test_tests_of_every_second_training_problem_leave_one_later_way_out() -> None:
    problems = branchy.make_prompts("train", 40, 0)
    left = [json.loads(problem.meta)["left_out"] for problem in problems]
    assert left[:4] == [None, 1, None, 2]
    for problem, way in zip(problems, left, strict=True):
        assert ways(problem) == {0, 1, 2} - {way}
    assert all(ways(problem) == {0, 1, 2} for problem in branchy.make_prompts("eval", 40, 0))


def test_no_training_problem_and_no_warm_start_begins_as_a_held_out_one() -> None:
    held_out = branchy.held_out_combinations()

    def first(problem: Prompt) -> tuple[int, ...]:
        return tuple(json.loads(problem.meta)["combinations"][0])

    assert not {first(p) for p in branchy.make_prompts("train", 400, 1)} & held_out
    assert {first(p) for p in branchy.make_prompts("eval", 100, 1)} <= held_out
    held = {p.question for p in branchy.make_prompts("eval", 400, 0)}
    assert not {q for q, _ in branchy.warm_start_answers(400, 0.0, 0)} & held


def test_problems_are_a_function_of_the_seed_and_none_is_asked_twice() -> None:
    first, again, other = (branchy.make_prompts("train", 300, seed) for seed in (3, 3, 4))
    assert first == again != other
    assert len({p.question for p in first}) == len({p.id for p in first}) == 300
    assert branchy.make_prompts("train", 60, 3) == first[:60]


def test_a_trace_is_what_the_program_does() -> None:
    for index, problem in enumerate(branchy.make_prompts("eval", 20, 0)):
        trace = Spec.of(problem).trace([3, -2, 5], random.Random(index))
        assert str(run(trace.code, trace.input)) == trace.output


def test_warm_start_suites_are_right_and_of_several_ways() -> None:
    suites = list(branchy.warm_start_suites(50, 4, 0))
    assert len(suites) == 50
    counts: set[int] = set()
    for code, suite in suites:
        asserts = [line for line in suite.split("\n") if line.startswith("assert")]
        counts.add(len(asserts))
        for line in asserts:
            call, output = line.removeprefix("assert ").split(" == ")
            assert str(run(code, call)) == output
    assert counts == {1, 2, 3, 4}


def test_corrupted_answers_still_parse_and_most_are_wrong() -> None:
    rng = random.Random(0)
    wrong = 0
    for problem in branchy.make_prompts("train", 100, 0):
        code = branchy.corrupt(Spec.of(problem), rng)
        cases = json.loads(problem.tests or "")
        wrong += any(run(code, f"f({c['input'][0]})") != c["output"] for c in cases)
    assert wrong > 60


def test_the_flat_level_is_that_of_minipy() -> None:
    assert levels.make_prompts("flat", "train", 30, 0) == minipy.make_prompts("train", 30, 0)
    assert levels.make_prompts("branchy", "eval", 3, 0) == branchy.make_prompts("eval", 3, 0)
