"""The card of a policy says what a summary knows, and leaves out what it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rl.report.model_card import policy_card
from rl.run.summary import PolicyFigures, RunSummary, SetFigures, Watch

pytestmark = pytest.mark.unit

BASE = PolicyFigures(pass_at_1=0.634, best_of=0.75, oracle=0.9, marks={"eval/test_right": 0.2})
FINAL = PolicyFigures(
    pass_at_1=0.885,
    best_of=None,
    oracle=0.95,
    marks={"eval/test_right": 0.3, "eval/trace_num_variables": 1.5},
)
SUMMARY = RunSummary(
    recipe="cure",
    labels="gold_tests",
    reward="hybrid",
    reward_execution="binary",
    reward_model="models/a|b",
    num_samples=8,
    base=BASE,
    final=FINAL,
    rm_pair_accuracy=None,
    valid_rate_first=None,
    valid_rate_last=None,
    num_steps=60,
    executed_for_reward=None,
    executed_for_evaluation=None,
    partition=None,
    watch=Watch(),
    wall_s=None,
    stage_s=None,
    seed=3,
    versions={"torch": "2.9", "vllm": "0.14"},
    sets={"mbpp": SetFigures(num_problems=30, base=BASE, final=FINAL)},
)


def card(summary: RunSummary = SUMMARY) -> str:
    return policy_card(
        summary,
        base="assets/minipy/policy",
        num_problems=120,
        command="python launch/train.py experiment=recipe_cure",
        commit="abc1234",
    )


def rows(text: str) -> dict[str, list[str]]:
    cells = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in cells}


def test_a_card_says_what_a_policy_was_made_of():
    text = card()
    found = rows(text)
    assert "Trained from `assets/minipy/policy`" in text
    assert "python launch/train.py experiment=recipe_cure\n```" in text
    assert "Commit: abc1234. Versions: torch 2.9, vllm 0.14" in text
    assert found["recipe"] == ["cure"] and found["labels"] == ["gold_tests"]
    assert found["judge"] == [r"hybrid (tests: binary; reward model `models/a\|b`)"]
    assert found["steps"] == ["60"] and found["seed"] == ["3"]


def test_a_card_has_the_figures_before_and_after_with_their_number():
    found = rows(card())
    assert found["120 held-out problems, 8 answers each"] == ["before", "after"]
    assert found["pass@1"] == ["0.634", "0.885"]
    assert found["best of 8"] == ["0.750", "-"]
    assert found["any of 8 passes"] == ["0.900", "0.950"]
    assert found["test right"] == ["0.200", "0.300"]
    assert found["trace num variables (variables)"] == ["-", "1.500"]
    assert found["pass@1 on 30 problems of mbpp"] == ["0.634", "0.885"]
    assert "the best of 8 is chosen by tests" in card()


def test_a_figure_that_nobody_measured_has_no_row():
    nothing = PolicyFigures(pass_at_1=None, best_of=None, oracle=None)
    bare = replace(
        SUMMARY, base=nothing, final=nothing, sets={}, recipe=None, versions=None, seed=None
    )
    found = rows(card(bare))
    assert not any(name.startswith(("pass@1", "best", "any")) for name in found)
    assert found["recipe"] == ["-"] and found["seed"] == ["-"]
