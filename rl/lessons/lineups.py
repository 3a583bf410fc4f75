"""Lineups: which programs of a problem are asked about together, and what a choice is worth.

After Aletheia (arXiv 2601.12186). Axes: N programs of a lineup.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rl.types import JudgedGroup, Lineup, Score

T = TypeVar("T")

_LOWEST = 0.8  # what the worst wrong choice loses


@dataclass(frozen=True, slots=True)
class Known:
    """A program, and the share of its problem's tests that it passes."""

    code: str
    pass_rate: float  # 1.0 only where it passes all of them


def known_of(judged: Iterable[tuple[str, Score]]) -> list[Known]:
    """The different programs that execution has judged, in order; "" is none.

    A wrong one whose tests were not all run counts as passing none.
    """
    found: dict[str, Known] = {}
    for code, score in judged:
        if code and score.verdict is not None and score.verdict.is_label:
            rate = 1.0 if score.passed else (score.num_passed or 0) / (score.num_tests or 1)
            found.setdefault(code, Known(code, rate))
    return list(found.values())


def known_programs(groups: Sequence[JudgedGroup]) -> list[Known]:
    """Those of groups of programs."""
    return known_of(
        (extraction.code, score)
        for group in groups
        for extraction, score in zip(group.extractions_G, group.scores_G, strict=True)
    )


def one_right(known: Sequence[Known], sizes: Sequence[int], rng: random.Random) -> Lineup | None:
    """A lineup with exactly one right program; None where there are too few programs.

    Its length is drawn from `sizes`, and is less where there are not as many wrong programs. These
    differ in their pass rate as far as they can. The place of each program is drawn.
    """
    num = rng.choice(sizes)
    right = [program for program in known if program.pass_rate == 1.0]
    wrong = [program for program in known if program.pass_rate != 1.0]
    if not right or len(wrong) < min(sizes) - 1:
        return None
    rng.shuffle(wrong)
    rates: set[float] = set()
    new: list[Known] = []
    others: list[Known] = []
    for program in wrong:
        (others if program.pass_rate in rates else new).append(program)
        rates.add(program.pass_rate)
    chosen = [rng.choice(right), *[*new, *others][: num - 1]]
    rng.shuffle(chosen)
    return lineup(chosen)


def covering(items: Sequence[T], longest: int, rounds: int, rng: random.Random) -> list[list[T]]:
    """Lists in which every item stands `rounds` times; none where there is nothing to choose.

    The lengths differ by one at most.

    >>> [len(found) for found in covering("abcdef", 5, 2, random.Random(0))]
    [3, 3, 3, 3]
    """
    if len(items) < 2:
        return []
    num_lists = -(-len(items) // longest)
    lists: list[list[T]] = []
    for _ in range(rounds):
        order = list(items)
        rng.shuffle(order)
        lists += [order[start::num_lists] for start in range(num_lists)]
    return lists


def lineup(programs: Sequence[Known]) -> Lineup:
    """Known programs, in this order."""
    return Lineup(
        codes_N=tuple(program.code for program in programs),
        pass_rates_N=tuple(program.pass_rate for program in programs),
    )


def distance_rewards(lineup: Lineup) -> list[float]:
    """What choosing each program earns: 1 for a right one, less the worse a wrong one is.

    The wrong ones are ranked by their pass rate, the best first, from -0.8 / (their number) down to
    -0.8; equals have the mean of their ranks.

    >>> rates = (0.5, 1.0, 0.25, 0.0, 0.5)
    >>> [round(r, 2) for r in distance_rewards(Lineup(codes_N=tuple("abcde"), pass_rates_N=rates))]
    [-0.3, 1.0, -0.6, -0.8, -0.3]
    """
    wrong = sorted((rate for rate in lineup.pass_rates_N if rate != 1.0), reverse=True)
    rewards: list[float] = []
    for rate in lineup.pass_rates_N:
        if rate == 1.0:
            rewards.append(1.0)
            continue
        first, number = wrong.index(rate), wrong.count(rate)
        mean_rank = first + (number + 1) / 2
        rewards.append(-_LOWEST * mean_rank / len(wrong))
    return rewards


def kendall_tau(left_N: Sequence[float], right_N: Sequence[float]) -> float | None:
    """Kendall's tau-b of two orders; None where one of them has no order.

    >>> kendall_tau([1, 2, 3], [10, 30, 20]), kendall_tau([1, 1], [0, 1])
    (0.3333333333333333, None)
    """
    agree = tied_left = tied_right = pairs = 0
    for i in range(len(left_N)):
        for j in range(i):
            pairs += 1
            left = (left_N[i] > left_N[j]) - (left_N[i] < left_N[j])
            right = (right_N[i] > right_N[j]) - (right_N[i] < right_N[j])
            agree += left * right
            tied_left += left == 0
            tied_right += right == 0
    untied = (pairs - tied_left) * (pairs - tied_right)
    return agree / untied**0.5 if untied else None
