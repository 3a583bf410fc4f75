"""Evidence for a selection: timed alone, gathered side by side, kept, and never found out twice."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator, Sequence

import numpy as np
import pytest

from actors.jobs.best_of_n import SelectionJudge
from conf.errors import NonFiniteError
from reward.select.best_of_n import JUDGE, METHODS, Evidence, SelectionPlan, SelectionSettings
from reward.verify.verdict import Verifier
from rl.run.evaluation_store import SampleRow, problem_digest
from rl.types import (
    Ask,
    Message,
    Prompt,
    PromptGroup,
    SamplingConfig,
    Score,
    Verdict,
)
from tests.unit.rl.fakes import make_completion

pytestmark = pytest.mark.unit

CODES = ["def f(x):\n    return x + 1", "", "def f(x):\n    return x - 1"]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(timeout_s=1.0) as made:
        yield made


def make_problems(num: int) -> list[Prompt]:
    return [
        Prompt(
            id=f"p{index}",
            messages=(Message("user", f"Add 1, please ({index})."),),
            tests='[{"input": [1], "output": 2}]',
            entry_point="f",
        )
        for index in range(num)
    ]


def make_samples(problems: Sequence[Prompt]) -> dict[str, list[SampleRow]]:
    return {
        prompt.id: [
            SampleRow(
                problem_id=prompt.id,
                problem=problem_digest(prompt),
                sample_idx=index,
                prompt=[],
                text="",
                code=code,
                reason="ok",
                verdict=Verdict.PASSED if index == 0 else Verdict.WRONG_ANSWER,
                num_passed=0,
                num_tests=1,
                seconds=0.0,
                detail="",
                finish="stop",
                num_tokens=1,
            )
            for index, code in enumerate(CODES)
        ]
        for prompt in problems
    }


class FakeTester:
    """Writes a right test, a wrong one and nonsense; remembers what ran beside what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    async def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        self.asked.append(tuple(ask.prompt.id for ask in asks))
        answers = ["assert f(1) == 2", "assert f(1) == 7", "no", "assert f(3) == 4"]
        for ask in asks:
            prompt = ask.prompt
            assert "assert f(...) == ..." in prompt.question and prompt.tests is None
            completions = [
                dataclasses.replace(make_completion(prompt.id, index), text=answers[index % 4])
                for index in range(ask.sampling.group_size)
            ]
            yield PromptGroup(
                ask=ask,
                prompt_token_ids=np.zeros(1, dtype=np.int32),
                completions_G=tuple(completions),
                engine="rollout-0",
                finished_s=0.0,
            )


class FakeRewardModel:
    """Prefers longer programs."""

    def __init__(self, value: float | None = None) -> None:
        self.value = value
        self.seen: list[str] = []

    async def score_problem(self, question: str, codes: Sequence[str | None]) -> tuple[Score, ...]:
        self.seen.append(question)
        return tuple(
            Score(value=None if code is None else self.value or float(len(code))) for code in codes
        )


def selection(problems: Sequence[Prompt]) -> SelectionPlan:
    return SelectionPlan(
        benchmark="made",
        problems=tuple(problems),
        tester="tester",
        sampling=SamplingConfig(group_size=4, max_tokens=8),
        figures=SelectionSettings(sizes=(1, 3), staged_top_k=2, staged_tests=2, seed=0),
        latency_problems=1,
        test_timeout_s=1.0,
        test_workers=1,
        settings={},
    )


def test_a_problem_judged_alone_has_the_seconds_of_every_stage(verifier: Verifier) -> None:
    problems = make_problems(2)
    tester, reward_model, kept = FakeTester(), FakeRewardModel(), list[Evidence]()
    judge = SelectionJudge(
        selection(problems), (tester, reward_model), verifier, make_samples(problems), kept.append
    )
    asyncio.run(judge.one_after_the_other(problems))
    assert [evidence.problem_id for evidence in kept] == ["p0", "p1"]
    for evidence in kept:
        assert evidence.seconds is not None
        stages = {stage for _, stages in METHODS.values() for stage in stages}
        assert stages - {JUDGE} == set(evidence.seconds)
        assert all(seconds > 0 for seconds in evidence.seconds.values())
    # Nothing beside it: one problem in each call; and a made-up one before the first.
    assert all(len(asked) == 1 for asked in tester.asked)
    assert tester.asked[0] == ("warm-up",) and ("warm-up",) not in tester.asked[2:]
    assert reward_model.seen == ["Warm up.", *(prompt.question for prompt in problems)]


def test_the_warm_up_leaves_nothing_that_a_timed_call_meets_again() -> None:
    problems = make_problems(1)
    with Verifier(timeout_s=1.0) as fresh:
        judge = SelectionJudge(
            selection(problems), (FakeTester(), FakeRewardModel()), fresh, make_samples(problems),
            lambda _: None,
        )  # fmt: skip
        asyncio.run(judge.one_after_the_other(problems))
        # Made-up problem and real one: two programs on generated tests, two finalists, and both on
        # the problem's own tests, whose verdicts the verifier remembers.
        assert fresh.num_executed == 2 * (2 + 2 + 2)


def test_evidence_says_what_programs_did(verifier: Verifier) -> None:
    problems = make_problems(3)
    kept: list[Evidence] = []
    judge = SelectionJudge(
        selection(problems), (FakeTester(), FakeRewardModel()), verifier, make_samples(problems),
        kept.append,
    )  # fmt: skip
    asyncio.run(judge.side_by_side(problems))
    assert sorted(evidence.problem_id for evidence in kept) == ["p0", "p1", "p2"]
    evidence = kept[0]
    assert evidence.seconds is None
    assert evidence.tests == ["assert f(1) == 2", "assert f(1) == 7", "assert f(3) == 4"]
    assert evidence.passed == ["101", "000", "000"]
    assert evidence.outputs == [[0, 0], [-1, -1], [1, 1]]  # of two distinct inputs
    assert evidence.scores == [len(CODES[0]), None, len(CODES[2])]
    assert (evidence.num_asked, evidence.num_programs, evidence.num_test_tokens) == (4, 2, 16)


def test_a_score_that_is_no_number_is_an_error(verifier: Verifier) -> None:
    problems = make_problems(1)
    judge = SelectionJudge(
        selection(problems), (FakeTester(), FakeRewardModel(float("nan"))), verifier,
        make_samples(problems), lambda _: None,
    )  # fmt: skip
    with pytest.raises(NonFiniteError, match="warm-up, sample 0"):
        asyncio.run(judge.one_after_the_other(problems))
