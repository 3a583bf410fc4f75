"""What the scores of pairs say, beyond single margins."""

from __future__ import annotations

import pytest

from reward.assess.assessment import Material, assess_scores
from reward.pairs.pairs import Pair
from rl.types import Score

pytestmark = pytest.mark.unit

SCORES = {
    ("q", "right"): 2.0,
    ("q", "wrong"): 1.0,
    ("q", "worse"): 3.0,
    ("r", "right"): 0.0,
    ("r", "wrong"): -1.0,
}


def pair(question: str, wrong: str) -> Pair:
    return Pair(prompt_id=question, question_content=question, code_pos="right", code_neg=wrong)


def test_the_auc_of_pairs_counts_each_program_once() -> None:
    pairs = (pair("q", "wrong"), pair("q", "worse"), pair("q", "wrong"), pair("r", "wrong"))
    scores = {text: Score(value=value) for text, value in SCORES.items()}
    found = assess_scores(Material(pairs=pairs, labelled=(), attacked=()), scores, (1,), 0)
    assert found.pairs is not None
    assert found.pairs.figures["accuracy"].value == 3 / 4
    assert found.pairs.figures["auc within"].value == (1 / 2 + 1) / 2
    assert found.pairs.figures["auc pooled"].value == 3 / 6
    assert found.lists == {}
