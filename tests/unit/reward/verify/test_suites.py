"""Suites: what tests say of a program, which branches they take, and what they would notice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reward.code.extract import ExtractConfig
from reward.judges.bundle import BundleJudge
from reward.judges.judge import Answers, ExecutionJudge
from reward.verify.suites import mutants_of, read_suite, run_suites
from reward.verify.verdict import Verifier
from rl.types import Given, JudgeKind, Prompt, Task

pytestmark = pytest.mark.unit

CODE = "def f(x):\n    if x > 3:\n        return x + 1\n    return 0"
PROBLEM = Prompt(
    id="p", messages=(), tests='[{"input": [1], "output": 0}]', entry_point="f", meta="{}"
)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(timeout_s=1.0) as made:
        yield made


def test_a_suite_is_the_first_tests_of_an_answer_each_input_once():
    text = "```python\nassert f(1) == 0\nassert f(1) == 1\nassert g(2) == 0\nassert f(5) == 6\n```"
    assert [test.output for test in read_suite(text, PROBLEM, 4)] == [0, 6]  # pyright: ignore[reportAttributeAccessIssue]
    assert len(read_suite(text, PROBLEM, 1)) == 1
    assert read_suite("no test", PROBLEM, 4) == []


def test_suites_are_told_apart_by_agreement_coverage_and_mutants(verifier: Verifier) -> None:
    texts = ["assert f(1) == 0", "assert f(1) == 0\nassert f(4) == 5", "assert f(4) == 4", "x"]
    suites = [read_suite(text, PROBLEM, 4) for text in texts]
    one, both, wrong, nothing = run_suites(verifier, PROBLEM, CODE, suites)
    assert (one.agrees, one.coverage) == (True, 0.5)
    assert (both.agrees, both.coverage) == (True, 1.0)
    assert 0 < one.killed < both.killed <= 1
    assert (wrong.agrees, wrong.coverage, wrong.killed) == (False, 0.5, 0.0)
    assert (nothing.agrees, nothing.num_tests, nothing.coverage) == (False, 0, 0.0)


def test_mutants_are_other_programs_and_always_the_same_ones():
    mutants = mutants_of(CODE)
    assert mutants == mutants_of(CODE) and CODE not in mutants
    assert len(set(mutants)) == len(mutants) == 12


def test_suites_are_judged_beside_programs_which_say_what_they_execute(verifier: Verifier) -> None:
    judge = BundleJudge(ExecutionJudge(verifier, ExtractConfig()), lambda: verifier)
    given = Given(code=CODE, num_tests=4)
    programs = Answers(problem=PROBLEM, texts_G=(f"```python\n{CODE}\n```", "no"), covered=True)
    asked = Answers(
        problem=PROBLEM,
        texts_G=("```python\nassert f(5) == 6\n```", "no"),
        task=Task.SUITE,
        given=given,
    )
    of_programs, of_suites = judge.judge([programs, asked])
    seen, nothing = of_programs.evidence.executed_G or (None, None)
    assert seen is not None and seen.left_lines == (3,) and nothing is None
    assert of_suites.judge is JudgeKind.SUITE
    assert [found.agrees for found in of_suites.evidence.suites_G or ()] == [True, False]
    assert [e.code for e in of_suites.extractions_G] == ["assert f(5) == 6", ""]
    assert of_suites.rewards_G.tolist() == [0.0, 0.0]  # the recipe says what they are worth
