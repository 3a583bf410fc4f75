"""Synthetic problems are a function of the seed, and each filter leaves out what it is for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rl.problems.making.synthetic import (
    PLANTED,
    Candidate,
    Filters,
    Observed,
    Shares,
    delta_of,
    largest_cluster,
    make_candidates,
    make_card,
    score_gap,
    sift_observed,
    sift_statements,
)
from rl.problems.minipy import FILTERS, MAPS, REDUCES, held_out_combinations, make_prompts
from rl.problems.prompts import load_prompts, write_prompts
from rl.types import Prompt

pytestmark = pytest.mark.unit

SHARES = Shares(ambiguous=0.2, outside=0.2)
FILTERS_OF_8 = Filters(min_agreement=5, delta_band=(0.05, 0.4))
PARENTS = make_prompts("train", 40, 0)


def combination_of(prompt: Prompt) -> list[int]:
    return json.loads(prompt.meta)["combination"]


def made(num: int = 300, seed: int = 0) -> list[Candidate]:
    return make_candidates(PARENTS, num, SHARES, 4, seed)


def seen(candidate: Candidate, agreement: int, delta: float, program: str = "") -> Observed:
    name = program or candidate.prompt.id
    return Observed(candidate=candidate, agreement=agreement, delta=delta, program=name)


def test_problems_are_a_function_of_the_seed_and_have_no_tests(tmp_path):
    candidates = made()
    assert candidates == made() != made(seed=1)
    assert made(20) == candidates[:20]
    assert all(c.prompt.tests is None and c.prompt.source == "synthetic" for c in candidates)
    path = tmp_path / "p.parquet"
    write_prompts(path, [c.prompt for c in candidates])
    assert load_prompts(path) == [c.prompt for c in candidates]


def test_a_plain_problem_takes_its_parts_from_its_parents() -> None:
    combinations = {p.id: json.loads(p.meta)["combination"] for p in PARENTS}
    for candidate in made():
        meta = json.loads(candidate.prompt.meta)
        parents = [combinations[name] for name in meta["parents"]]
        if candidate.planted == "plain":
            keep, change, fold = candidate.combination or (-1, -1, -1)
            assert [parents[0][0], parents[1][1], parents[2][2]] == [keep, change, fold]
            phrases = [FILTERS[keep].phrase, MAPS[change].phrase, REDUCES[fold].phrase]
            assert meta["concepts"] == phrases


def test_a_walk_combines_what_occurs_together_and_takes_it_from_its_parents() -> None:
    problems = make_prompts("train", 400, 0)
    one = next(p for p in problems if combination_of(p)[:2] == [0, 0])
    other = next(p for p in problems if combination_of(p)[:2] == [1, 1])
    parents = 20 * [one] + 20 * [other]
    shares = Shares(ambiguous=0, outside=0)
    apart = {}
    for way in ("walk", "uniform"):
        made = make_candidates(parents, 400, shares, 1, 0, combine=way)
        assert made == make_candidates(parents, 400, shares, 1, 0, combine=way)
        parts = [candidate.combination or (-1, -1, -1) for candidate in made]
        apart[way] = sum(keep != change for keep, change, _ in parts) / len(parts)
        for candidate, (keep, change, fold) in zip(made, parts, strict=True):
            names = json.loads(candidate.prompt.meta)["parents"]
            held = [combination_of(one if name == one.id else other) for name in names]
            assert [held[0][0], held[1][1], held[2][2]] == [keep, change, fold]
    assert apart["uniform"] == pytest.approx(0.5, abs=0.1)
    assert 0 < apart["walk"] < 0.2  # no problem has them together, so by epsilon alone


def test_planted_problems_come_in_their_shares_and_say_so() -> None:
    candidates = made(1000)
    counts = Counter(c.planted for c in candidates)
    assert counts["ambiguous"] == pytest.approx(200, abs=40)
    assert counts["outside"] == pytest.approx(200, abs=40)
    grammar = {p.question for p in make_prompts("train", 4000, 0)}
    for candidate in candidates:
        assert json.loads(candidate.prompt.meta)["planted"] == candidate.planted
        if candidate.planted != "plain":
            assert candidate.combination is None
            assert candidate.prompt.question not in grammar


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


def test_the_gap_has_error_rates_of_its_own_beside_those_of_agreement() -> None:
    kinds = {kind: [c for c in made() if c.planted == kind][:2] for kind in PLANTED}
    gaps = {"plain": [9.0, 9.0], "outside": [9.0, 0.0], "ambiguous": [0.0, 9.0]}
    observed = [
        replace(seen(candidate, 8 if gap else 6, 0.2), gap=gap)
        for kind in PLANTED
        for candidate, gap in zip(kinds[kind], gaps[kind], strict=True)
    ]
    observed.append(replace(seen(made()[-1], 2, 0.2), gap=-9.0))  # agreement has it already
    candidates = [one.candidate for one in observed]
    found = make_card(candidates, observed, {}, replace(FILTERS_OF_8, min_gap=2.0))[
        "finds_ambiguous"
    ]
    assert found["gap_of_agreed"] == {
        "precision": 1 / 2,
        "recall": 1 / 2,
        "plain_lost": 0.0,
        "outside_lost": 1 / 2,
    }
    assert "gap" not in make_card(candidates, observed, {}, FILTERS_OF_8)["finds_ambiguous"]


def test_the_card_counts_every_problem_once_and_tells_the_two_errors_apart() -> None:
    kinds = {kind: [c for c in made() if c.planted == kind][:4] for kind in PLANTED}
    agreeing = {"plain": [6, 6, 6, 4], "outside": [6, 6, 4, 4], "ambiguous": [6, 4, 4, 4]}
    observed = [
        seen(candidate, agreement, 0.2)
        for kind in PLANTED
        for candidate, agreement in zip(kinds[kind], agreeing[kind], strict=True)
    ]
    candidates = [one.candidate for one in observed]
    _, reasons = sift_observed(observed, FILTERS_OF_8)
    card = make_card(candidates, observed, reasons, FILTERS_OF_8)
    assert card["made"] == dict.fromkeys(PLANTED, 4)
    assert card["kept"] == {"plain": 3, "outside": 2, "ambiguous": 1}
    assert card["left_out"]["agreement"] == {"plain": 1, "outside": 2, "ambiguous": 3}
    found = card["finds_ambiguous"]["agreement"]
    assert found == {
        "precision": 3 / 6,
        "recall": 3 / 4,
        "plain_lost": 1 / 4,
        "outside_lost": 2 / 4,
    }
    assert card["finds_ambiguous"]["delta"]["precision"] is None  # it left out nothing
    odd = [replace(one, delta=0.9) for one in observed]
    assert make_card(candidates, odd, {}, FILTERS_OF_8)["finds_ambiguous"]["delta"]["recall"] == 1
