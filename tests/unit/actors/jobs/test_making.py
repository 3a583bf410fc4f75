"""What a tiny policy of several tasks learns from."""

from __future__ import annotations

import pytest

from actors.jobs.making import answers_of
from conf.commands.make_policy import MakePolicyArgs

pytestmark = pytest.mark.unit


def test_tasks_take_turns_and_a_verdict_ends_with_its_letter():
    tasks = ("code", "verdict", "verdict_letter")
    args = MakePolicyArgs(output="none", tasks=tasks, num_answers=300)
    answers = list(answers_of(args))
    assert len(answers) == 300
    steps, letters = answers[1::3], answers[2::3]
    for question, answer in steps:
        line, verdict = answer.split("\n")
        letter = verdict.removeprefix("best = ")
        program = question.split(f"{letter}:\n```python\n")[1].split("\n```")[0]
        assert program.endswith(line)
    assert {answer for _, answer in letters} == {"best = A", "best = B", "best = C"}
