"""Examples of minipy are what they say: right, or wrong in one part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf.commands.make_examples import MakeExamplesArgs
from launch import make_examples
from reward.pairs.pairs import read_pairs
from rl.problems.examples import read_examples
from rl.problems.minipy import make_prompts
from rl.problems.minipy_examples import pairs_of_programs, right_answers
from rl.problems.prompts import FunctionalTests, parse_tests

pytestmark = pytest.mark.unit

ASSETS = Path(__file__).resolve().parents[4] / "assets/minipy/examples"


def solves(code: str, tests: str | None) -> bool:
    """Whether a program of this project's own generator passes tests."""
    scope: dict[str, Callable[..., Any]] = {}
    exec(code, scope)
    parsed = parse_tests(tests or "", "f")
    assert isinstance(parsed, FunctionalTests)
    return all(scope["f"](*case.args) == case.output for case in parsed.cases)


def test_answers_are_right_and_wrong_programs_are_wrong() -> None:
    tests = {prompt.question: prompt.tests for prompt in make_prompts("train", 40, 3)}
    for question, answer in right_answers(40, 3):
        assert solves(answer.removeprefix("```python\n").removesuffix("\n```"), tests[question])
    found = list(pairs_of_programs(40, 3))
    assert all(solves(right, tests[question]) for question, right, _ in found)
    wrong = [solves(wrong, tests[question]) for question, _, wrong in found]
    assert sum(wrong) <= 2  # eight tests do not see every difference


def test_no_held_out_problem_is_among_the_shipped_examples() -> None:
    held_out = {prompt.question for prompt in make_prompts("eval", 120, 0)}
    for name, kind in (("answers.jsonl", "answers"), ("pairs.parquet", "pairs")):
        examples = read_examples(str(ASSETS / name), kind)  # pyright: ignore[reportArgumentType]
        assert len(examples) == 512
        assert not held_out & {example.prompt.question for example in examples}


def test_the_shipped_examples_are_those_that_the_command_makes(tmp_path: Path) -> None:
    make_examples.run(MakeExamplesArgs(output=str(tmp_path)))
    answers, pairs = tmp_path / "answers.jsonl", tmp_path / "pairs.parquet"
    assert answers.read_bytes() == (ASSETS / answers.name).read_bytes()
    assert read_pairs(pairs) == read_pairs(ASSETS / pairs.name)
