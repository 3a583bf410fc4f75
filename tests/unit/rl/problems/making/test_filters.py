"""Each filter leaves out what it is for, and the first one counts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from rl.problems.datasets.requests import function_request, mbpp_request
from rl.problems.making.filters import (
    Candidate,
    delta_of,
    largest_cluster,
    score_gap,
    sift_observed,
    sift_statements,
)
from rl.problems.minipy import held_out_combinations
from rl.types import Message
from tests.unit.rl.problems.making.made import FILTERS_OF_8, PARENTS, made, seen

pytestmark = pytest.mark.unit


def test_nothing_of_the_held_out_problems_or_of_the_known_ones_is_left() -> None:
    candidates = made()
    secret = candidates[3].prompt.question.upper().replace(" ", "  ")
    left, reasons = sift_statements(candidates, [p.question for p in PARENTS], [secret])
    assert {c.prompt.id for c in left} | set(reasons) == {c.prompt.id for c in candidates}
    assert reasons[candidates[3].prompt.id] == "contamination"
    held_out = [c.prompt.id for c in candidates if c.combination in held_out_combinations()]
    assert held_out
    assert {reasons[name] for name in held_out} == {"contamination"}
    questions = [c.prompt.question for c in left]
    assert len(set(questions)) == len(questions)
    assert not set(questions) & {p.question for p in PARENTS}


def test_agreement_and_delta_are_those_of_the_outputs() -> None:
    outputs = np.array([[0, 0], [0, 0], [0, 0], [1, 0], [-1, -1], [-1, -1]], dtype=np.int32)
    assert largest_cluster(outputs) == (3, 0)  # programs that fail alike do not agree
    assert delta_of(outputs) == pytest.approx(1 - (3 / 6 + 4 / 6) / 2)
    nothing = np.full((4, 2), -1, dtype=np.int32)
    assert largest_cluster(nothing) == (0, None)
    assert delta_of(nothing) == 1.0


def test_each_filter_leaves_out_what_it_is_for_and_the_first_counts() -> None:
    a, b, c, d, e, f = made(6)
    observed = [
        seen(a, 6, 0.2, "x"),
        seen(b, 4, 0.2),
        seen(c, 8, 0.0),  # unanimity teaches nothing
        seen(d, 5, 0.5),
        seen(e, 7, 0.1, "x"),  # what a's programs do
        seen(f, 2, 0.8),  # both bounds
    ]
    kept, reasons = sift_observed(observed, FILTERS_OF_8)
    assert [prompt.id for prompt in kept] == [a.prompt.id]
    assert [reasons[one.prompt.id] for one in (b, c, d, e, f)] == [
        "agreement",
        "delta",
        "delta",
        "duplicate",
        "agreement",
    ]
    meta = json.loads(kept[0].meta)
    assert (meta["delta"], meta["agreement"]) == (0.2, 6)
    assert set(meta) == {"concepts", "parents", "planted", "delta", "agreement"}


def test_a_gap_that_is_too_small_leaves_out_and_none_is_asked_without_a_bound() -> None:
    one, two, alone = made(3)
    observed = [
        replace(seen(one, 6, 0.2), gap=1.9),
        replace(seen(two, 6, 0.2), gap=2.0),
        seen(alone, 6, 0.2),  # no program differs, or none was scored
    ]
    asked = replace(FILTERS_OF_8, min_gap=2.0)
    kept, reasons = sift_observed(observed, asked)
    assert reasons == {one.prompt.id: "gap"}
    assert [json.loads(prompt.meta).get("gap") for prompt in kept] == [2.0, None]
    assert sift_observed(observed, FILTERS_OF_8)[1] == {}
    assert score_gap([1.0, 3.0], [-4.0, 0.5]) == 1.5
    assert score_gap([], [1.0]) is None


def asked(candidate: Candidate, request: str) -> Candidate:
    prompt = replace(candidate.prompt, messages=(Message("user", request),))
    return replace(candidate, kind="written", combination=None, prompt=prompt)


def test_statements_are_compared_without_the_wording_of_requests() -> None:
    one, two, three = made(3)
    again = asked(one, function_request("add  1 TO x.", "it", "def f(x):\n    ..."))
    secret = asked(two, function_request("Take 1 from x.", "it", "def g(x):\n    ..."))
    other = asked(three, function_request("Double x.", "it", "def h(x):\n    ..."))
    known = mbpp_request("Add 1 to x.", "assert f(1) == 2")
    held_out = [function_request("Take 1 from x.", "`f`"), mbpp_request("Halve x.", "assert f(2)")]
    left, reasons = sift_statements([again, secret, other], [known], held_out, 13)
    assert left == [other]  # though all are asked for in more than 13 words alike
    assert reasons == {again.prompt.id: "statement", secret.prompt.id: "contamination"}


def test_words_in_common_with_a_held_out_statement_leave_out_where_they_are_asked_for() -> None:
    (one,) = made(1)
    words = "count the pairs of numbers in a list whose sum is a prime number"
    near = asked(one, f"In a town, {words.title()}; return it.")
    assert sift_statements([near], [], [f"Please {words}!"], 13)[1] == {one.prompt.id: "overlap"}
    assert sift_statements([near], [], [f"Please {words}!"], 15)[0] == [near]
    assert sift_statements([near], [], [f"Please {words}!"])[0] == [near]


def test_our_wording_is_not_what_a_statement_has_in_common() -> None:
    (one,) = made(1)
    written = asked(one, function_request("Double x.", "it", "def h(x):\n    ..."))
    secret = "Complete this starter code; its names and parameters must stay as they are."
    assert sift_statements([written], [], [secret], 13)[0] == [written]
