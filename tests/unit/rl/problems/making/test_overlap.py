"""Overlap is a run of words, in any case and punctuation; of a shorter statement all its words."""

from __future__ import annotations

import pytest

from rl.problems.making.overlap import Overlap

pytestmark = pytest.mark.unit

HELD_OUT = "Given a list of words, return the longest one that reads the same backwards."


@pytest.mark.parametrize(
    ("text", "is_held_out"),
    [
        ("Anna has A LIST OF WORDS - return the longest.", True),  # seven in a row
        ("A list of words: return a longest one that reads the same.", False),  # runs of 5
        ("longest one that reads", True),  # shorter itself, and a part
        ("longest one which reads", False),
        ("", False),
        ("...", False),
    ],
)
def test_seven_words_in_a_row(text: str, is_held_out: bool) -> None:
    assert Overlap([HELD_OUT], 7).has(text) is is_held_out


def test_a_short_held_out_statement_is_met_by_all_its_words() -> None:
    overlap = Overlap(["Sort the list.", HELD_OUT], 13)
    assert overlap.has("First sort the list, then return its head with a lot of other words.")
    assert not overlap.has("First sort a list, then return its head with a lot of other words.")


def test_statements_without_words_meet_nothing() -> None:
    assert not Overlap(["", "?!"], 3).has("Return the sum.")
    assert not Overlap([], 3).has("Return the sum.")
