"""Choice of one of several programs by lists: whom the votes on a list name, and who goes on.

Programs are called by their index: a lower one was sampled earlier.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from rl.lessons.lineups import covering

Ask = Callable[[Sequence[Sequence[int]]], Awaitable[Sequence[int]]]  # the winner of each list


def named_by(listed: Sequence[int], votes: Sequence[int | None]) -> tuple[int, bool]:
    """The program of a list that most votes name, and whether they name one alone.

    None is a vote that cannot be read. Among equals, which are all where nothing can be read, the
    earliest is taken.

    >>> named_by([3, 1, 2], [2, 3, None, 3]), named_by([3, 1, 2], [2, 1]), named_by([3, 1], [None])
    ((3, True), (1, False), (1, False))
    """
    counts = Counter(vote for vote in votes if vote is not None)
    most = max(counts.values(), default=0)
    named = [program for program in listed if counts[program] == most]
    return min(named), len(named) == 1


async def knockout(programs: Sequence[int], longest: int, rng: random.Random, ask: Ask) -> int:
    """The program that is left when the winners of lists meet in lists again.

    Each round deals all that are left into as few lists as hold them, in an order that is drawn;
    the lengths differ by one at most, and a list of one is won without a question. Raises
    ValueError for no program.
    """
    left = sorted(programs)
    if not left:
        raise ValueError("a knockout needs a program")
    while len(left) > 1:
        lists = covering(left, longest, 1, rng)
        winners = await ask([listed for listed in lists if len(listed) > 1])
        left = sorted([*winners, *(listed[0] for listed in lists if len(listed) == 1)])
    return left[0]
