"""Examples of minipy for supervised and preference runs: right answers, and pairs of programs.

The problems are training problems: no combination of the held-out split is among them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from rl.problems.minipy import (
    CONSTANTS,
    FILTERS,
    MAPS,
    REDUCES,
    Numbers,
    Spec,
    fenced,
    specs,
)
from rl.seeds import derive_seed

_NUM_LISTS = 32  # on which a wrong program must once say something else


def right_answers(num: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield (question, right answer)."""
    rng = random.Random(derive_seed(seed, "minipy right answers"))
    for spec in specs("train", num, seed):
        yield spec.question, fenced(spec.program(rng))


def pairs_of_programs(num: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield (question, right program, wrong program); the wrong one errs in one part."""
    rng = random.Random(derive_seed(seed, "minipy pairs of programs"))
    for spec in specs("train", num, seed):
        wrong = _near_miss(spec, rng)
        while not _differ(spec, wrong, rng):
            wrong = _near_miss(spec, rng)
        yield spec.question, spec.program(rng), wrong.program(rng)


def _near_miss(spec: Spec, rng: random.Random) -> Spec:
    """The spec with another filter, map, reduction, or other constants."""
    keep, change, fold = spec.combination
    match rng.randrange(4):
        case 0:
            keep = rng.randrange(len(FILTERS))
        case 1:
            change = rng.randrange(len(MAPS))
        case 2:
            fold = rng.randrange(len(REDUCES))
        case _:
            return Spec(spec.combination, rng.choice(CONSTANTS), rng.choice(CONSTANTS))
    return Spec((keep, change, fold), spec.filter_k, spec.map_k)


def _differ(one: Spec, other: Spec, rng: random.Random) -> bool:
    """Whether two specs return different things for some list."""
    lists = [[rng.randint(-20, 20) for _ in range(12)] for _ in range(_NUM_LISTS)]
    return any(_result(one, xs) != _result(other, xs) for xs in lists)


def _result(spec: Spec, xs: Numbers) -> int | Numbers | None:
    """What a program returns; None where it raises, as the maximum of nothing does."""
    try:
        return spec.solve(xs)
    except ValueError:
        return None
