"""Suites: what tests say of a program, which branches they take, and what they would notice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reward.code.extract import ExtractConfig
from reward.judges.bundle import BundleJudge
from reward.judges.judge import Answers, ExecutionJudge
from reward.verify.generated_tests import text_of
from reward.verify.suites import Claims, mutants_of, read_suite, run_suites
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


def texts(claims: Claims) -> list[str]:
    return [text_of(test) for test in claims.tests]


def test_a_suite_is_the_first_different_tests_of_an_answer():
    text = "```python\nassert f(1) == 0\nassert f(1) == 1\nassert f(1) == 0\nassert f(5) == 6\n```"
    read = read_suite(text, PROBLEM, 4)
    # One of two values of the same input is wrong, and costs what a wrong test costs.
    assert texts(read) == ["assert f(1) == 0", "assert f(1) == 1", "assert f(5) == 6"]
    assert read.num_unread == 0
    assert read_suite("no test", PROBLEM, 4) == Claims([], 0)


@pytest.mark.parametrize(
    "bad",
    [
        "assert f(2 == 0",
        "assert f(x) == 0",
        "assert f(2) == g(2)",
        "assert g(2) == 0",
        "assert f(2) > 0",
        "assert f(...) == ...",
        "assert f(2) == {1, 2}",
        "assert",
        "1. assert f(2) == 0",
        "- `assert f(2) == 0`",
        "assert f(1) == 0; assert f(2) == x",
        "def test():\n    assert f(\n        x\n    ) == 0",
        "for x in range(3):\n    assert f(x) == 0",
    ],
)
def test_an_assert_that_is_no_test_is_counted_beside_the_tests(bad: str):
    for text in (f"```python\nassert f(1) == 0\n{bad}\n```", f"{bad}\nassert f(1) == 0"):
        read = read_suite(text, PROBLEM, 4)
        assert (texts(read), read.num_unread) == (["assert f(1) == 0"], 1)


def test_what_is_asserted_beyond_the_number_of_tests_is_counted_too():
    text = "assert f(1) == 0\nassert f(2) == 5\nassert f(3) == x\nassert f(1) == 0"
    assert read_suite(text, PROBLEM, 1).num_unread == 2
    assert read_suite(text, PROBLEM, 2).num_unread == 1


@pytest.mark.parametrize(
    "text",
    [
        "assert f(\n    1\n) == 0",
        "assert f(1) == 0; assert f(1) == 0",
        "I assert that it adds.\nassert f(1) == 0",
        "asserts = 3\nassert f(1) == 0",
        "f(1) == 0",
        '{"input": [1], "output": 0}',
    ],
)
def test_what_is_read_in_another_form_is_not_unread(text: str):
    read = read_suite(f"```python\n{text}\n```", PROBLEM, 4)
    assert (texts(read), read.num_unread) == (["assert f(1) == 0"], 0)


@pytest.mark.parametrize("part", ["assert f(\n", "assert f(1) == 0;", "- ", "assert "])
def test_a_hostile_suite_of_any_length_is_read(part: str):
    read_suite(part * 50_000, PROBLEM, 4)


def test_suites_are_told_apart_by_agreement_coverage_and_mutants(verifier: Verifier) -> None:
    asked = ["assert f(1) == 0", "assert f(1) == 0\nassert f(4) == 5", "assert f(4) == 4", "x"]
    suites = [read_suite(text, PROBLEM, 4) for text in asked]
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
        texts_G=("```python\nassert f(5) == 6\nassert f(6) == x\n```", "no"),
        task=Task.SUITE,
        given=given,
    )
    of_programs, of_suites = judge.judge([programs, asked])
    seen, nothing = of_programs.evidence.executed_G or (None, None)
    assert seen is not None and seen.left_lines == (3,) and nothing is None
    assert of_suites.judge is JudgeKind.SUITE
    found_G = of_suites.evidence.suites_G or ()
    assert [(found.agrees, found.unread_share) for found in found_G] == [(True, 0.5), (False, 1.0)]
    assert [e.code for e in of_suites.extractions_G] == ["assert f(5) == 6", ""]
    assert of_suites.rewards_G.tolist() == [0.0, 0.0]  # the recipe says what they are worth
