"""minipy's problems: solvable as they say, told apart by their tests, split without overlap."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from hashlib import blake2b
from typing import cast

import pytest

from rl.problems import minipy
from rl.problems.minipy import COMBINATIONS, FILTERS, MAPS, REDUCES, Spec
from rl.types import Prompt

pytestmark = pytest.mark.unit

NUM_SPELLINGS_DRAWN = 40
SPECS = [Spec(combination, 3 + i % 7, 2 + i % 5) for i, combination in enumerate(COMBINATIONS)]


@cache
def compiled(code: str) -> Callable[[list[int]], object]:
    """The function of a program. Only programs of this generator are run here."""
    namespace: dict[str, object] = {}
    exec(code, namespace)
    return cast(Callable[[list[int]], object], namespace[minipy.ENTRY_POINT])


def passes(code: str, tests: str) -> bool:
    function = compiled(code)
    return all(function(*case["input"]) == case["output"] for case in json.loads(tests))


def combination_of(prompt: Prompt) -> tuple[int, ...]:
    return tuple(json.loads(prompt.meta)["combination"])


def test_every_spelling_of_every_combination_passes_its_tests():
    for number, spec in enumerate(SPECS):
        tests = spec.tests(random.Random(number))
        spellings = {spec.program(random.Random(seed)) for seed in range(NUM_SPELLINGS_DRAWN)}
        num_codes = [len(part.codes) for part in spec.parts]
        assert len(spellings) == num_codes[0] * num_codes[1] * num_codes[2]
        for code in spellings:
            assert passes(code, tests), (spec.question, code)


def test_every_problem_has_its_number_of_tests_and_its_answer_does_what_it_says():
    spec = Spec((4, 1, 0), 5, 2)
    assert spec.solve([1, 6, -7, 5, 10]) == 36 + 100
    assert len(json.loads(spec.tests(random.Random(0)))) == minipy.NUM_TESTS


def neighbours(spec: Spec) -> list[Spec]:
    """The problems that differ in one part or in one constant."""
    keep, change, fold = spec.combination
    combinations = [(k, change, fold) for k in range(len(FILTERS)) if k != keep]
    combinations += [(keep, c, fold) for c in range(len(MAPS)) if c != change]
    combinations += [(keep, change, f) for f in range(len(REDUCES)) if f != fold]
    others = [Spec(c, spec.filter_k, spec.map_k) for c in combinations]
    others += [Spec(spec.combination, spec.filter_k + d, spec.map_k) for d in (-1, 1)]
    return others + [Spec(spec.combination, spec.filter_k, spec.map_k + d) for d in (-1, 1)]


def differ(one: Spec, other: Spec, lists: list[list[int]]) -> bool:
    """Whether the two problems have different answers, where both have one."""
    return any(one.solve(xs) != other.solve(xs) for xs in lists)


def test_tests_reject_the_programs_of_neighbouring_problems():
    rng = random.Random(0)
    lists = [[*range(-20, 41)], *(rng.sample(range(-20, 41), 40) for _ in range(20))]
    wrong = undetected = 0
    for number, spec in enumerate(SPECS[::5]):
        tests = spec.tests(random.Random(number))
        for other in neighbours(spec):
            if not differ(spec, other, lists):
                continue  # the same function in other words
            cases = json.loads(tests)
            wrong += 1
            undetected += all(_answer(other, case["input"][0]) == case["output"] for case in cases)
    assert wrong > 500
    assert undetected / wrong < 0.02


def _answer(spec: Spec, xs: list[int]) -> object:
    """What a right program of the problem returns; None where it fails, as max([]) does."""
    keep, _, fold = spec.parts
    kept = [x for x in xs if keep.keep(x, spec.filter_k)]
    return spec.solve(xs) if kept or fold.phrase not in {"maximum", "minimum"} else None


def test_held_out_combinations_never_appear_in_training():
    held_out = minipy.held_out_combinations()
    train = {combination_of(p) for p in minipy.make_prompts("train", 600, seed=1)}
    evaluation = {combination_of(p) for p in minipy.make_prompts("eval", 300, seed=1)}
    assert len(held_out) == minipy.NUM_HELD_OUT
    assert not train & held_out
    assert evaluation <= held_out
    assert len(train) > 150  # the split is wide, not empty
    assert len(evaluation) > 50


def test_the_warm_start_asks_no_held_out_question():
    held_out = {
        Spec(combination, filter_k, map_k).question
        for combination in minipy.held_out_combinations()
        for filter_k in minipy.CONSTANTS
        for map_k in minipy.CONSTANTS
    }
    asked = {question for question, _ in minipy.warm_start_answers(2000, 0.5, seed=0)}
    assert not asked & held_out


def test_the_split_does_not_depend_on_the_seed_of_a_run():
    splits = [
        {combination_of(p) for p in minipy.make_prompts("eval", 200, seed)} for seed in (0, 1)
    ]
    assert not (splits[0] | splits[1]) - minipy.held_out_combinations()


@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_same_seed_gives_the_same_problems_and_another_seed_others(split):
    first, again, other = (minipy.make_prompts(split, 50, seed) for seed in (3, 3, 4))
    assert first == again
    assert [p.question for p in first] != [p.question for p in other]


def test_more_problems_begin_with_the_fewer_ones():
    assert minipy.make_prompts("train", 60, 0)[:20] == minipy.make_prompts("train", 20, 0)


@pytest.mark.parametrize(("split", "num"), [("train", 1000), ("eval", 120)])
def test_no_question_is_asked_twice_while_there_are_new_ones(split, num):
    questions = [prompt.question for prompt in minipy.make_prompts(split, num, seed=0)]
    assert len(set(questions)) == num


def test_asking_for_more_problems_than_there_are_repeats_some_and_ends():
    prompts = minipy.make_prompts("eval", 1000, seed=0)
    assert len(prompts) == 1000
    assert len({prompt.id for prompt in prompts}) == 1000
    assert 500 < len({prompt.question for prompt in prompts}) < 1000


def test_a_prompt_carries_its_tests_and_its_entry_point():
    prompt = minipy.make_prompts("train", 1, seed=0)[0]
    assert prompt.entry_point == minipy.ENTRY_POINT
    assert [message.role for message in prompt.messages] == ["user"]
    for case in json.loads(prompt.tests or ""):
        assert set(case) == {"input", "output"}


def code_of(answer: str) -> str:
    return answer.removeprefix("```python\n").removesuffix("\n```")


def test_uncorrupted_warm_start_answers_are_right():
    by_question = {spec.question: spec for spec in minipy.specs("train", 2000, seed=0)}
    answered = 0
    for question, answer in minipy.warm_start_answers(300, 0.0, seed=5):
        if question in by_question:
            tests = by_question[question].tests(random.Random(0))
            assert passes(code_of(answer), tests), answer
            answered += 1
    assert answered > 100


def test_corrupted_answers_are_of_several_kinds_and_mostly_not_the_right_ones():
    spec = Spec((4, 4, 0), 5, 3)
    tests = spec.tests(random.Random(0))
    answers = [minipy.corrupt(spec, random.Random(seed)) for seed in range(200)]
    right = {
        minipy.fenced(spec.program(random.Random(seed))) for seed in range(NUM_SPELLINGS_DRAWN)
    }
    unfenced = [answer for answer in answers if not answer.startswith("```")]
    wrong = [
        answer
        for answer in answers
        if answer.startswith("```")
        and _runs(code_of(answer))
        and not passes(code_of(answer), tests)
    ]
    assert len(unfenced) > 10
    assert len(wrong) > 50
    assert sum(answer in right for answer in answers) < 50


def _runs(code: str) -> bool:
    """Whether the program still defines its function and gets through one list."""
    try:
        compiled(code)([1, 6, 20])
    except (SyntaxError, NameError, KeyError, TypeError, AttributeError):
        return False
    return True


def test_tests_for_a_warm_start_are_right_and_of_training_problems():
    held_out = {spec.question for spec in minipy.specs("eval", 2000, seed=0)}
    right_programs = {
        spec.question: spec.program(random.Random(0)) for spec in minipy.specs("train", 4000, 0)
    }
    num_checked = 0
    for prompt, test in minipy.warm_start_tests(300, seed=1):
        assert prompt.question not in held_out
        if prompt.question in right_programs:
            function = compiled(right_programs[prompt.question])
            exec(test, {"f": function})
            assert passes(right_programs[prompt.question], prompt.tests or "")
            num_checked += 1
    assert num_checked > 100


def test_lineups_for_a_warm_start_hold_one_right_program_in_any_place():
    held_out = {spec.question for spec in minipy.specs("eval", 2000, seed=0)}
    by_question = {spec.question: spec for spec in minipy.specs("train", 4000, 0)}
    made = list(minipy.warm_start_lineups(300, seed=1, sizes=(2, 3)))
    assert {len(lineup.codes_N) for _, lineup, _ in made} == {2, 3}
    places = [lineup.right for _, lineup, _ in made]
    assert all(places.count(letter) > 30 for letter in "ABC")
    num_checked = 0
    for prompt, lineup, line in made:
        assert prompt.question not in held_out
        assert len(set(lineup.codes_N)) == len(lineup.codes_N)
        right = lineup.codes_N["ABC".index(lineup.right or "")]
        assert right.endswith(line) and line.startswith("return ")
        if spec := by_question.get(prompt.question):
            tests = spec.tests(random.Random(3))
            assert passes(right, tests)
            num_checked += 1
    assert num_checked > 100


def test_programs_are_watched_on_a_list_as_short_as_those_that_a_policy_has_worked_out():
    for split in ("train", "eval"):
        for prompt in minipy.make_prompts(split, 20, seed=0):
            (xs,) = json.loads(prompt.meta)["watched"]
            assert len(xs) == minipy.NUM_WORKED_OUT


def test_what_a_problem_is_made_of_can_be_read_from_it() -> None:
    for prompt in minipy.make_prompts("train", 50, 0):
        assert Spec.of(prompt).question == prompt.question


def test_rows_are_those_of_before_their_constants_were_kept_but_for_these() -> None:
    """Ids, questions, tests, order and watched lists, by a digest of the version before."""
    rows: list[object] = []
    for split in ("train", "eval"):
        for prompt in minipy.make_prompts(split, 200, seed=0):
            meta = json.loads(prompt.meta)
            del meta["constants"]
            kept = replace(prompt, meta=json.dumps(meta))
            rows.append(asdict(kept))
    digest = blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()
    assert digest == "271c371091e13ccf00dca2609a0c70a5"
