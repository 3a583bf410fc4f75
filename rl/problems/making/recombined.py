"""Synthetic problems of minipy: recombined from known ones.

A problem takes its filter, map and reduction from three parents, drawn uniformly or by a walk over
their concepts. Two kinds are planted, so that the errors of the filters can be told apart:
`ambiguous` ones, whose reduction has two readings, and `outside` ones, which are well posed but of
a form that no training problem has.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from rl.problems.making.concepts import Concept, ConceptGraph
from rl.problems.making.filters import Candidate, Kind
from rl.problems.minipy import (
    CONSTANTS,
    ENTRY_POINT,
    FILTERS,
    Combination,
    Numbers,
    Spec,
)
from rl.seeds import derive_seed
from rl.types import Message, Prompt

# The one in the middle place, or the median; that of extremes, or of ends; the last, or largest.
AMBIGUOUS = ("middle", "difference", "end")
_PARITIES, _SIGNS = (0, 1), (2, 3, 4, 5)  # filters that can be joined and still keep something

Combine = Literal["uniform", "walk"]
_KINDS = ("filter", "map", "reduction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How many of the problems are planted."""

    ambiguous: float
    outside: float


def make_candidates(  # noqa: PLR0913 - what is made of what, and how
    parents: Sequence[Prompt],
    num: int,
    shares: Shares,
    num_inputs: int,
    seed: int,
    *,
    combine: Combine = "uniform",
) -> list[Candidate]:
    """Recombine problems of minipy; the held-out combinations are not avoided."""
    choose = _Choice(parents, combine)
    made: list[Candidate] = []
    for index in range(num):
        rng = random.Random(derive_seed(seed, "synthetic problem", index))
        draw = rng.random()
        planted: Kind = "plain"
        if draw < shares.ambiguous + shares.outside:
            planted = "ambiguous" if draw < shares.ambiguous else "outside"
        chosen = choose.parents(rng)
        keep, change, fold = (_combination(one)[place] for place, one in enumerate(chosen))
        spec = Spec((keep, change, fold), rng.choice(CONSTANTS), rng.choice(CONSTANTS))
        question, concepts = _written(spec, planted, rng)
        meta = {"concepts": concepts, "parents": [parent.id for parent in chosen]}
        made.append(
            Candidate(
                prompt=Prompt(
                    id=f"synthetic-{seed}-{index}",
                    messages=(Message("user", question),),
                    entry_point=ENTRY_POINT,
                    source="synthetic",
                    meta=json.dumps(meta | {"planted": planted}),
                ),
                kind=planted,
                inputs=tuple((_input(spec.filter_k, rng),) for _ in range(num_inputs)),
                combination=spec.combination if planted == "plain" else None,
            )
        )
    return made


class _Choice:
    """Whose filter, map and reduction, in this order, a new problem takes."""

    def __init__(self, parents: Sequence[Prompt], combine: Combine) -> None:
        self._parents = parents
        concepts_P = [
            {Concept(_KINDS[place], str(part)) for place, part in enumerate(_combination(parent))}
            for parent in parents
        ]
        self._graph = ConceptGraph(concepts_P) if combine == "walk" else None

    def parents(self, rng: random.Random) -> list[Prompt]:
        if self._graph is None:
            return [rng.choice(self._parents) for _ in _KINDS]
        walked = {concept.kind: concept for concept in self._graph.walk(len(_KINDS), rng)}
        holders = [self._graph.holders(walked[kind]) for kind in _KINDS]
        return [self._parents[rng.choice(places)] for places in holders]


def _combination(parent: Prompt) -> Combination:
    return cast("Combination", tuple(json.loads(parent.meta)["combination"]))


def _written(spec: Spec, planted: Kind, rng: random.Random) -> tuple[str, list[str]]:
    """The question and the phrases that it is made of."""
    keep, change, fold = (part.phrase for part in spec.parts)
    if planted == "plain":
        return spec.question, [keep, change, fold]
    if planted == "ambiguous":
        fold = rng.choice(AMBIGUOUS)
        kept = [keep]
    elif rng.random() < 0.5:  # no number is left out
        kept = []
    else:
        kept = [FILTERS[rng.choice(_PARITIES)].phrase, FILTERS[rng.choice(_SIGNS)].phrase]
    numbers = f"the numbers in xs that are {' and '.join(kept)}" if kept else "the numbers in xs"
    text = f"Return the {fold} of the {change.format(k=spec.map_k)} of "
    return f"{text}{numbers.format(k=spec.filter_k)}.", [*kept, change, fold]


def _input(k: int, rng: random.Random) -> Numbers:
    """Numbers at the border of a filter, and some of each parity on either side of it."""
    xs = rng.sample([k - 1, k, k + 1, -k, 0, 1, -1], 4)
    xs += [2 * rng.randint(5, 15), 2 * rng.randint(5, 15) + 1, k * rng.randint(2, 4)]
    xs += [-2 * rng.randint(1, 10), -2 * rng.randint(1, 10) - 1]
    rng.shuffle(xs)
    return xs
