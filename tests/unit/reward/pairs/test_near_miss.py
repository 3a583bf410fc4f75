"""Near-misses are verified: every negative was executed and failed, and every positive passes."""

from __future__ import annotations

import ast
import random
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.code.normal_form import normalise
from reward.pairs.near_miss import NearMissConfig, mutants, near_miss_pairs
from reward.pairs.pairs import LabelledCode, Pair
from reward.verify.verdict import Program, Verifier
from rl.problems import minipy
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
        tests_passed=1.0 if passed else 0.0,
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


def test_every_second_swap_is_the_nearest_of_a_few(verifier):
    def donor(code: str) -> LabelledCode:
        return labelled(list(PROMPTS.values())[-1], code, passed=True)

    near = "def f(xs):\n    return [x + 4 for x in xs if x > 100]"
    far = [donor(f"def g{n}(a, b):\n    while a < b:\n        a += {n}") for n in range(15)]
    prompt = next(iter(PROMPTS.values()))
    right = SOLVED[0]
    cfg = NearMissConfig(mutants_per_prompt=0, swaps_per_prompt=2, seed=0)
    found = near_miss_pairs([right], {prompt.id: prompt}, verifier, cfg, [donor(near), *far])
    assert near in {pair.code_neg for pair in found}


def test_no_negative_of_a_problem_appears_twice_or_equals_a_solution(pairs):
    for prompt_id in PROMPTS:
        negatives = [normalise(p.code_neg) for p in pairs if p.prompt_id == prompt_id]
        assert len(set(negatives)) == len(negatives)
        assert not {normalise(c.code) for c in SOLVED if c.prompt_id == prompt_id} & set(negatives)


def test_a_pair_carries_its_problem_and_where_its_solution_came_from(pairs):
    for pair in pairs:
        assert pair.question_content == PROMPTS[pair.prompt_id].question
        assert (pair.neg_step, pair.neg_policy_version) == (4, 3)


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


# ---------------------------------------------------------------- mutants


def _function(body: str) -> str:
    return f"def f(xs):\n    return {body}"


_PROGRAMS = [
    "def f(xs):\n    return sorted(x * 2 for x in xs if x > 5)  # kept",
    "def f(xs):\n    return len([abs(x) for x in xs if x % 3 == 0])",
    (
        "def f(n, k):\n    total = 0\n    for i in range(1, n):\n"
        "        if i % 2 == 0 and i != k:\n"
        "            total += i\n    return total if total else -1\n"
    ),
    "n = int(input())\nwhile n > 1:\n    print('n', f'{n:>3}', sep='-', end='')\n    n //= 2\n",
    "def f(s):\n    'Doc.'\n    return s in ('\u00e9\u00e8', 'b') or (not s and (len(s)) < 3)",
    "def f(xs): return [x for x in (xs) if (x > 1) if x < 9], any(x is None for x in xs)",
]


@pytest.mark.parametrize("code", _PROGRAMS)
def test_a_mutant_parses_differs_and_keeps_the_layout(code: str) -> None:
    found = mutants(code, random.Random(0), 10_000)
    assert len(found) > 10
    keys = {normalise(mutant) for mutant in found}
    assert len(keys) == len(found)
    assert normalise(code) not in keys
    for mutant in found:
        ast.parse(mutant)
        assert abs(len(mutant.split("\n")) - len(code.split("\n"))) == 0
        assert ("# kept" in mutant) is ("# kept" in code)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (_function("[x for x in xs if x > 5]"), _function("[x for x in xs if x > 6]")),
        (_function("[x for x in xs if x > 5]"), _function("[x for x in xs if x >= 5]")),
        (_function("[x for x in xs if x > 5]"), _function("[x for x in xs]")),
        (_function("[x for x in xs if x > 5]"), _function("[x for x in xs if not x > 5]")),
        (_function("sum(x * x for x in xs)"), _function("max(x * x for x in xs)")),
        (_function("sum(x * x for x in xs)"), _function("len([x * x for x in xs])")),
        (_function("sum(x * x for x in xs)"), _function("[x * x for x in xs]")),
        (_function("sum(x * x for x in xs)"), _function("sum(x for x in xs)")),
        (_function("sum(x * x for x in xs)"), _function("sum(x + x for x in xs)")),
        (_function("sorted(xs, reverse=True)"), _function("sorted(xs)")),
        (_function("sorted(xs, reverse=True)"), _function("sorted(xs, reverse=False)")),
        (_function("abs(-xs)"), _function("-xs")),
        (_function("abs(-xs)"), _function("abs(xs)")),
        ("def f(a, b): return a", "def f(a, b): return b"),
        ("def f(n): return range(n)", "def f(n): return range(n + 1)"),
        ("def f(n):\n    if n: return 1", "def f(n):\n    if not n: return 1"),
        ("def f(a, b): return a and b", "def f(a, b): return a or b"),
        ("def f(n):\n    n += 1", "def f(n):\n    n -= 1"),
        ("def f(n): return 1 if n else 2", "def f(n): return 2"),
    ],
)
def test_the_usual_mistakes_are_among_the_mutants(code: str, expected: str) -> None:
    assert expected in mutants(code, random.Random(0), 10_000)


def test_few_mutants_are_of_many_kinds_and_repeat_with_the_seed() -> None:
    code = _PROGRAMS[2]
    assert mutants(code, random.Random(3), 4) == mutants(code, random.Random(3), 4)
    assert mutants(code, random.Random(3), 4) != mutants(code, random.Random(4), 4)
    assert len(mutants(code, random.Random(3), 4)) == 4


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_mutation_or_normalisation(text: str) -> None:
    normalise(text)
    mutants(text, random.Random(0), 3)
