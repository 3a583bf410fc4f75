"""Scoring candidates: every text once, in order, in calls that neither starve nor block a shard."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from actors.groups.reward import RewardGroup
from actors.stages.raw_scores import Candidates, score_all
from conf.errors import NonFiniteError
from rl.types import Score
from tests.unit.actors.groups.seats import seat, supervisor

pytestmark = pytest.mark.unit


class FakeGroup(RewardGroup):
    """Scores a text by its length, and remembers the problems of each call."""

    def __init__(self, shards: int = 2) -> None:
        seats = [seat(f"reward-{shard}", lambda: None) for shard in range(shards)]
        super().__init__(seats, 1.0, supervisor())
        self.calls: list[int] = []

    async def score_problems(
        self, problems: Sequence[tuple[str, Sequence[str | None]]]
    ) -> list[tuple[Score, ...]]:
        self.calls.append(len(problems))
        await asyncio.sleep(0.01 / len(self.calls))  # later calls are answered first
        return [tuple(scored(question, text) for text in texts) for question, texts in problems]


def scored(question: str, text: str | None) -> Score:
    return Score(value=float("nan") if text == "nan" else float(len(question + str(text))))


def score(group: FakeGroup, problems: Sequence[Candidates]) -> list[list[float | None]]:
    done: list[int] = []
    found = asyncio.run(score_all(group, problems, lambda: done.append(1)))
    assert len(done) == len(problems)
    return [[one.value for one in scores] for scores in found]


def problems_of(num: int, chars: int, texts: int = 4) -> list[Candidates]:
    """Problems whose texts differ in length."""
    return [
        Candidates(question="q" * i, texts=tuple("x" * (chars + t) for t in range(texts)))
        for i in range(num)
    ]


@pytest.mark.parametrize(("num", "chars"), [(1, 10), (7, 10), (64, 100), (50, 10_000)])
def test_every_text_is_scored_in_the_order_in_which_it_was_given(num, chars):
    problems = problems_of(num, chars)
    wanted = [[float(len(p.question + text)) for text in p.texts] for p in problems]
    assert score(FakeGroup(), problems) == wanted


def test_short_problems_share_calls_and_every_shard_gets_some():
    group = FakeGroup(shards=4)
    score(group, problems_of(64, 100))
    assert sum(group.calls) == 64
    assert 12 <= len(group.calls) <= 20  # about four for each shard


def test_many_short_problems_do_not_become_long_calls():
    group = FakeGroup()
    score(group, problems_of(1000, 1000))
    assert max(group.calls) <= 5  # of 4,000 characters and more each


def test_a_long_problem_has_a_call_of_its_own():
    group = FakeGroup()
    score(group, problems_of(20, 10_000))
    assert group.calls == [1] * 20


def test_nothing_to_score_makes_no_call():
    group = FakeGroup()
    assert score(group, []) == []
    assert group.calls == []


def test_a_score_that_is_no_number_is_told_with_its_text_and_problem():
    with pytest.raises(NonFiniteError, match=r"gave nan for 'nan' on the problem 'Add\.'"):
        score(FakeGroup(), [Candidates(question="Add.", texts=("fine", "nan"))])
