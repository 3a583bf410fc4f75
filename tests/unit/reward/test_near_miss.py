"""Near-misses are verified: every negative was executed and failed, and every positive passes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from reward.near_miss import NearMissConfig, near_miss_pairs
from reward.normal_form import normalise
from reward.pairs import LabelledCode, Pair
from reward.verdict import Program, Verifier
from rl import minipy
from rl.types import Prompt

pytestmark = pytest.mark.unit

CFG = NearMissConfig(mutants_per_prompt=3, swaps_per_prompt=2, seed=0)
SPECS = minipy.specs("train", 8, seed=0)
PROMPTS = {prompt.id: prompt for prompt in minipy.make_prompts("train", 8, seed=0)}


def labelled(prompt: Prompt, code: str, passed: bool) -> LabelledCode:
    return LabelledCode(
        prompt_id=prompt.id,
        question=prompt.question,
        code=code,
        passed=passed,
        num_passed=8 if passed else 0,
        num_tests=8,
        step=4,
        policy_version=3,
    )


SOLVED = [
    labelled(prompt, spec.program(random.Random(0)), passed=True)
    for prompt, spec in zip(PROMPTS.values(), SPECS, strict=True)
]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=10.0) as made:
        yield made


@pytest.fixture(scope="module")
def pairs(verifier: Verifier) -> list[Pair]:
    return near_miss_pairs(SOLVED, PROMPTS, verifier, CFG)


def share_passed(verifier: Verifier, prompt_id: str, codes: Sequence[str]) -> list[float]:
    prompt = PROMPTS[prompt_id]
    programs = [Program(code, prompt.tests or "", prompt.entry_point) for code in codes]
    return [found.num_passed / found.num_tests for found in verifier.verify(programs)]


def test_every_positive_passes_and_every_negative_fails_its_problem(verifier, pairs):
    assert pairs
    for pair in pairs:
        right, wrong = share_passed(verifier, pair.prompt_id, [pair.code_pos, pair.code_neg])
        assert right == 1.0
        assert wrong < 1.0
        assert pair.neg_tests_passed == wrong


def test_both_sources_are_used_within_their_bounds(pairs):
    for prompt_id in PROMPTS:
        sources = Counter(pair.source for pair in pairs if pair.prompt_id == prompt_id)
        assert set(sources) <= {"mutant", "swap"}
        assert sources["mutant"] <= CFG.mutants_per_prompt
        assert sources["swap"] <= CFG.swaps_per_prompt
    assert {pair.source for pair in pairs} == {"mutant", "swap"}


def test_a_swap_is_the_solution_of_another_problem(pairs):
    for pair in pairs:
        if pair.source == "swap":
            donors = {code.prompt_id for code in SOLVED if code.code == pair.code_neg}
            assert donors - {pair.prompt_id}


def test_no_negative_of_a_problem_appears_twice_or_equals_a_solution(pairs):
    for prompt_id in PROMPTS:
        negatives = [normalise(p.code_neg) for p in pairs if p.prompt_id == prompt_id]
        assert len(set(negatives)) == len(negatives)
        assert not {normalise(c.code) for c in SOLVED if c.prompt_id == prompt_id} & set(negatives)


def test_a_pair_carries_its_problem_and_where_its_solution_came_from(pairs):
    for pair in pairs:
        assert pair.question_content == PROMPTS[pair.prompt_id].question
        assert (pair.step, pair.policy_version) == (4, 3)


def test_the_same_seed_makes_the_same_pairs_and_another_seed_others(verifier, pairs):
    other = NearMissConfig(mutants_per_prompt=3, swaps_per_prompt=2, seed=1)
    assert near_miss_pairs(SOLVED, PROMPTS, verifier, CFG) == pairs
    assert near_miss_pairs(SOLVED, PROMPTS, verifier, other) != pairs


def test_problems_without_solution_or_without_tests_have_no_near_miss(verifier):
    first = PROMPTS[SOLVED[0].prompt_id]
    failed = labelled(first, "def f(xs):\n    return 0", passed=False)
    of_unknown_problem = SOLVED[1]
    known = {first.id: first}
    assert near_miss_pairs([failed, of_unknown_problem], known, verifier, CFG) == []


def test_asking_for_none_executes_nothing(verifier):
    before = verifier.num_executed
    cfg = NearMissConfig(mutants_per_prompt=0, swaps_per_prompt=0, seed=0)
    assert near_miss_pairs(SOLVED, PROMPTS, verifier, cfg) == []
    assert verifier.num_executed == before
