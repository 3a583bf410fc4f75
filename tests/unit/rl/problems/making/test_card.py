"""A card counts every problem once, and tells the two errors of a bound apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rl.problems.making.card import make_card, tables_of
from rl.problems.making.filters import PLANTED, Candidate, Kind, sift_observed
from tests.unit.rl.problems.making.made import FILTERS_OF_8, made, seen

pytestmark = pytest.mark.unit


def kinds_of(candidates: list[Candidate]) -> dict[str, Kind]:
    return {candidate.prompt.id: candidate.kind for candidate in candidates}


def test_the_gap_has_error_rates_of_its_own_beside_those_of_agreement() -> None:
    kinds = {kind: [c for c in made() if c.kind == kind][:2] for kind in PLANTED}
    gaps = {"plain": [9.0, 9.0], "outside": [9.0, 0.0], "ambiguous": [0.0, 9.0]}
    observed = [
        replace(seen(candidate, 8 if gap else 6, 0.2), gap=gap)
        for kind in PLANTED
        for candidate, gap in zip(kinds[kind], gaps[kind], strict=True)
    ]
    observed.append(replace(seen(made()[-1], 2, 0.2), gap=-9.0))  # agreement has it already
    candidates = [one.candidate for one in observed]
    found = make_card(kinds_of(candidates), observed, {}, replace(FILTERS_OF_8, min_gap=2.0))[
        "finds_ambiguous"
    ]
    assert found["gap_of_agreed"] == {
        "precision": 1 / 2,
        "recall": 1 / 2,
        "plain_lost": 0.0,
        "outside_lost": 1 / 2,
    }
    assert (
        "gap" not in make_card(kinds_of(candidates), observed, {}, FILTERS_OF_8)["finds_ambiguous"]
    )


def test_the_card_counts_every_problem_once_and_tells_the_two_errors_apart() -> None:
    kinds = {kind: [c for c in made() if c.kind == kind][:4] for kind in PLANTED}
    agreeing = {"plain": [6, 6, 6, 4], "outside": [6, 6, 4, 4], "ambiguous": [6, 4, 4, 4]}
    observed = [
        seen(candidate, agreement, 0.2)
        for kind in PLANTED
        for candidate, agreement in zip(kinds[kind], agreeing[kind], strict=True)
    ]
    candidates = [one.candidate for one in observed]
    _, reasons = sift_observed(observed, FILTERS_OF_8)
    card = make_card(kinds_of(candidates), observed, reasons, FILTERS_OF_8)
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
    assert (
        make_card(kinds_of(candidates), odd, {}, FILTERS_OF_8)["finds_ambiguous"]["delta"]["recall"]
        == 1
    )


def test_written_problems_are_counted_with_those_that_nobody_can_read() -> None:
    candidates = [replace(candidate, kind="written") for candidate in made(3)]
    kinds = kinds_of(candidates) | {"lost": "written"}
    observed = [seen(candidates[0], 6, 0.2), seen(candidates[1], 2, 0.2)]
    reasons = {candidates[2].prompt.id: "overlap", "lost": "unreadable"}
    reasons[candidates[1].prompt.id] = "agreement"
    card = make_card(kinds, observed, reasons, FILTERS_OF_8)  # pyright: ignore[reportArgumentType]
    assert card["made"] == {"written": 4} and card["kept"] == {"written": 1}
    assert card["left_out"]["unreadable"] == card["left_out"]["overlap"] == {"written": 1}
    assert "finds_ambiguous" not in card  # nobody knows which ones are
    tables = list(tables_of(card | {"unreadable": {"no_inputs": 1}}))
    assert [title for title, _, _ in tables] == ["problems", "unreadable"]
    assert ("left out: unreadable", "1") in tables[0][1] and tables[1][1] == [("no inputs", "1")]
