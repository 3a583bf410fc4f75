"""Concepts of problems as a graph, and walks over it that say what a new problem combines.

As in QueST (arXiv 2510.17715): two concepts are joined by `log(n + epsilon)` where n problems have
both, and a step of a walk is drawn by the softmax of these weights, so in proportion to
n + epsilon. Pairs that no problem has stay within reach.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import permutations
from typing import NamedTuple

EPSILON = 1.0


class Concept(NamedTuple):
    """Something that a problem is about; a walk takes one of each kind."""

    kind: str
    name: str


class ConceptGraph:
    """Which concepts occur together in which problems.

    >>> even, sums, counts = Concept("filter", "even"), Concept("fold", "sum"), Concept("fold", "n")
    >>> graph = ConceptGraph([{even, sums}, {even, sums}, {even, counts}])
    >>> graph.weight(even, sums), graph.weight(even, counts), graph.holders(sums)
    (3.0, 2.0, [0, 1])
    """

    def __init__(self, concepts_P: Sequence[Collection[Concept]]) -> None:
        self._concepts_P = concepts_P
        self._concepts = sorted({concept for concepts in concepts_P for concept in concepts})
        self._pairs = Counter(
            pair for concepts in concepts_P for pair in permutations(sorted(concepts), 2)
        )

    def weight(self, one: Concept, other: Concept) -> float:
        """Problems that have both concepts, and epsilon."""
        return self._pairs[one, other] + EPSILON

    def holders(self, concept: Concept) -> list[int]:
        """Places of the problems that have the concept."""
        return [place for place, held in enumerate(self._concepts_P) if concept in held]

    def walk(self, length: int, rng: random.Random) -> list[Concept]:
        """At most `length` concepts of different kinds; the first is drawn uniformly."""
        walked: list[Concept] = []
        while len(walked) < length:
            kinds = {concept.kind for concept in walked}
            left = [concept for concept in self._concepts if concept.kind not in kinds]
            if not left:
                break
            weights = [self.weight(walked[-1], concept) for concept in left] if walked else None
            walked += rng.choices(left, weights)
        return walked
