"""Walks go where problems go, reach pairs that none has, and are a function of their draw."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rl.problems.making.concepts import Concept, ConceptGraph

pytestmark = pytest.mark.unit

A, B = Concept("filter", "a"), Concept("filter", "b")
X, Y = Concept("map", "x"), Concept("map", "y")
GRAPH = ConceptGraph([{A, X}] * 8 + [{B, Y}])


def test_a_step_is_drawn_in_proportion_to_the_problems_that_have_both_and_epsilon() -> None:
    rng = random.Random(0)
    after_a = Counter(walk[1] for walk in (GRAPH.walk(2, rng) for _ in range(8000)) if walk[0] == A)
    assert after_a[X] / after_a.total() == pytest.approx(9 / 10, abs=0.02)
    assert set(after_a) == {X, Y}  # no problem has a with y


def test_a_walk_has_one_concept_of_each_kind_and_begins_anywhere() -> None:
    walks = [GRAPH.walk(5, random.Random(seed)) for seed in range(40)]
    assert all({concept.kind for concept in walk} == {"filter", "map"} for walk in walks)
    assert all(len(walk) == 2 for walk in walks)
    assert {walk[0] for walk in walks} == {A, B, X, Y}
    assert GRAPH.walk(2, random.Random(5)) == GRAPH.walk(2, random.Random(5))
    assert len(GRAPH.walk(1, random.Random(0))) == 1
