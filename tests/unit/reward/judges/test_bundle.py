"""Tests of a bundle: what every program does with each, in the places of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from reward.judges.bundle import BundleJudge
from reward.judges.judge import Answers, Judge
from reward.sandbox.pool import Job, Outcome
from reward.sandbox.report import Ending, Observation
from reward.verify.verdict import Verifier
from rl.types import JudgeKind, Message, Prompt, Task

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
