"""Tests of a bundle: what every program does with each, in the places of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from reward.judges.bundle import BundleJudge, judge_traces
from reward.judges.judge import Answers, Judge, Judged
from reward.sandbox.pool import Job, Outcome
from reward.sandbox.report import Ending, Observation
from reward.verify.verdict import Verifier
from rl.types import Extraction, JudgeKind, Message, Prompt, Reason, Score, Task, Trace
from tests.unit.rl.fakes import make_group

pytestmark = pytest.mark.unit


class Counting:
    """A sandbox in which every call returns its number: 1, 2, ..."""

    def observe(self, jobs_N: Sequence[Job]) -> list[Outcome]:
        seen = tuple(Observation(Ending.FINISHED, value=number) for number in (1, 2))
        return [Outcome(observations_N=seen, seconds=0) for _ in jobs_N]


def test_a_test_that_cannot_be_read_keeps_its_column_and_nothing_passes_it():
    problem = Prompt(
        id="p0",
        messages=(Message("user", "f"),),
        tests='[{"input": [1], "output": 1}]',
        entry_point="f",
    )
    texts = ("?", "assert f(7) == 1", "nothing", "assert f(8) == 1", "assert")
    judge = BundleJudge(cast("Judge", None), lambda: cast("Verifier", Counting()))
    codes = ["def f(x): ...", "", "def f(y): ..."]
    (judged,) = judge.judge([Answers(problem=problem, texts_G=texts, task=Task.TEST)], codes)
    assert judged.judge is JudgeKind.MATRIX
    assert judged.evidence.passed_NM is not None
    passed = judged.evidence.passed_NM.astype(int).tolist()
    assert passed == [[0, 1, 0, 0, 0], [0] * 5, [0, 1, 0, 0, 0]]
    assert [e.valid for e in judged.extractions_G] == [False, True, False, True, False]
    assert judged.num_executed == 2  # an answer without code is not run


def test_an_answer_to_a_trace_earns_the_share_of_it_that_is_right():
    trace = Trace(code="", input="f(1)", output="3", variables=(("a", "1"), ("b", "[2]")))
    texts = ("a = 1\nb = [2]\noutput = 3", "a = 1\nb = 2\noutput = 4", "?", "output = 4")
    problem = Prompt(id="t", messages=())
    judged = judge_traces(Answers(problem=problem, texts_G=texts, task=Task.TRACE, trace=trace))
    assert judged.rewards_G.tolist() == pytest.approx([1.0, 1 / 3, 0.0, 0.0])
    assert [score.value for score in judged.scores_G] == [1.0, pytest.approx(1 / 3), None, 0.0]
    assert [e.code for e in judged.extractions_G][:2] == ["a = 1\nb = [2]\n3", "a = 1\nb = 2\n4"]
    assert [e.valid for e in judged.extractions_G] == [True, True, False, True]


class Unjudged:
    """A judge of programs that knows every answer for a program and says nothing of it."""

    def judge(self, problem: Prompt, texts_G: Sequence[str]) -> Judged:
        del problem
        return Judged(
            extractions_G=tuple(Extraction(reason=Reason.OK, code=text) for text in texts_G),
            scores_G=(Score(value=None),) * len(texts_G),
            rewards_G=np.zeros(len(texts_G), np.float32),
            judge=JudgeKind.EXECUTION,
            num_executed=0,
        )


@pytest.mark.parametrize("variables", [True, False])
def test_programs_are_watched_for_what_their_ask_wants(variables: bool):
    problem = Prompt(id="p0", messages=(), tests='[{"input": [3], "output": 1}]', entry_point="f")
    code = "def f(x):\n    y = x + 1\n    return y * 2"
    group = make_group(problem, 1)
    (completion,) = group.completions_G
    ask = replace(group.ask, traced=True, variables=variables)
    group = replace(group, ask=ask, completions_G=(replace(completion, text=code),))
    with Verifier(timeout_s=2.0) as verifier:
        judge = BundleJudge(cast("Judge", Unjudged()), lambda: verifier)
        (judged,) = judge.judge([Answers.of(group)])
    held = (("y", "4"),) if variables else ()
    assert judged.evidence.traces_G == (Trace(code=code, input="f(3)", output="8", variables=held),)
