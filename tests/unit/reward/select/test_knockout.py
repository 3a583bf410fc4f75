"""A knockout of lists: every program may win, and each round asks about all that are left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from reward.select.knockout import knockout, named_by

pytestmark = pytest.mark.unit


class Highest:
    """Names the highest program of each list, and remembers what it was asked."""

    def __init__(self) -> None:
        self.rounds: list[list[list[int]]] = []

    async def __call__(self, lists: Sequence[Sequence[int]]) -> list[int]:
        self.rounds.append([[*listed] for listed in lists])
        return [max(listed) for listed in lists]


@pytest.mark.parametrize(
    ("num", "longest", "rounds"), [(16, 4, 2), (5, 2, 3), (4, 4, 1), (26, 26, 1)]
)
def test_the_program_that_wins_its_lists_is_left(num: int, longest: int, rounds: int) -> None:
    judge = Highest()
    programs = range(10, 10 + num)
    assert asyncio.run(knockout(programs, longest, random.Random(0), judge)) == 9 + num
    assert len(judge.rounds) == rounds
    left = {*programs}
    for lists in judge.rounds:
        assert all(2 <= len(listed) <= longest for listed in lists)
        in_lists = {program for listed in lists for program in listed}
        assert in_lists <= left
        left = left - in_lists | {max(listed) for listed in lists}
    assert left == {9 + num}


def test_lists_are_as_few_and_as_even_as_can_be() -> None:
    judge = Highest()
    asyncio.run(knockout(range(9), 4, random.Random(0), judge))
    assert sorted(map(len, judge.rounds[0])) == [3, 3, 3]


def test_one_program_is_chosen_without_a_question() -> None:
    judge = Highest()
    assert asyncio.run(knockout([7], 4, random.Random(0), judge)) == 7
    assert judge.rounds == []
    with pytest.raises(ValueError, match="needs a program"):
        asyncio.run(knockout([], 4, random.Random(0), judge))


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([5, 9, 5], (5, True)),
        ([9, 9, 5, 5], (5, False)),  # equals: the earliest, whatever the order of the list
        ([2, 9, None, None], (2, False)),
        ([None, None], (2, False)),
        ([], (2, False)),
    ],
)
def test_most_votes_win_and_equals_fall_to_the_earliest(
    votes: list[int | None], expected: tuple[int, bool]
) -> None:
    assert named_by([9, 5, 2], votes) == expected
