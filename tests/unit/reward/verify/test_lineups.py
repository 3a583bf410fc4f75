"""Verdicts: the letter that an answer states is read, and nothing else is."""

from __future__ import annotations

import pytest

from reward.judges.bundle import BundleJudge, judge_verdicts
from reward.judges.judge import Answers
from reward.verify.lineups import read_verdict, request_for_verdict
from rl.types import JudgeKind, Lineup, Message, Prompt, Task

pytestmark = pytest.mark.unit

PROBLEM = Prompt(id="p", messages=(Message("system", "Be brief."), Message("user", "Add two.")))
LINEUP = Lineup(codes_N=("one", "two", "three"), pass_rates_N=(0.5, 1.0, 0.0))


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("return x\nbest = B", "B"),
        ("best = A, no:\nbest = C.", "C"),
        ("Best: (b)", "B"),
        (r"so \boxed{\text{C}}", "C"),
        (" **B** ", "B"),
        ("best = D", None),
        ("best = **B**", "B"),
        ("best = `B`", "B"),
        ("**best** = B.", "B"),
        ("**Best: B**", "B"),
        ('{"best": "B"}', "B"),
        ("best = b", "B"),
        ("b", "B"),
        (r"$\boxed{B}$.", "B"),
        ("best = A\nOr so. best = B\r\n", "B"),
        ("best = Candidate B", None),
        ("best = Answer B", None),
        ("The best: both A and C fail.", None),
        ("The best: a program that sorts.", None),
        ("best = A or B", None),
        ("best = A, B", None),
        ("best = B is what I would say of A, B and C", None),
        ("best = A\nbest = none of them", None),
        ("second_best = B\nNothing more.", None),
        ("The second-best: B\nNothing more.", None),
        ("if best == B", None),
        ("best = AB", None),
        ("best =", None),
        ("A is best", None),
        ("", None),
        ("AB", None),
        ("best = " + "B" * 9000, None),
    ],
)
def test_a_letter_is_read_where_it_is_stated(text: str, letter: str | None):
    assert read_verdict(text, LINEUP) == letter


def test_the_question_holds_problem_and_programs_but_not_what_is_known_of_them():
    asked = request_for_verdict(PROBLEM, LINEUP, "p#list-0", form="steps")
    assert asked.id == "p#list-0" and asked.tests is None
    assert asked.messages[0] == PROBLEM.messages[0]
    assert all(f"{letter}:\n```python\n" in asked.question for letter in "ABC")
    assert asked.question.startswith("Add two.") and "0.5" not in asked.question


def answers(lineup: Lineup | None) -> Answers:
    texts = ("best = B", "best = A", "?")
    return Answers(problem=PROBLEM, texts_G=texts, task=Task.VERDICT, lineup=lineup)


def test_a_verdict_is_right_where_it_names_the_only_right_program():
    (judged,) = BundleJudge(_Nobody(), _no_verifier).judge([answers(LINEUP)])
    assert [score.value for score in judged.scores_G] == [1.0, 0.0, None]
    assert judged.rewards_G.tolist() == [1.0, 0.0, 0.0]
    assert [e.code for e in judged.extractions_G] == ["B", "A", ""]
    assert judged.judge is JudgeKind.VERDICT and judged.num_executed == 0


def test_without_an_only_right_program_a_choice_has_no_score():
    both = Lineup(codes_N=("one", "two"), pass_rates_N=(1.0, 1.0))
    judged = judge_verdicts(answers(both))
    assert [score.value for score in judged.scores_G] == [None] * 3
    assert [e.valid for e in judged.extractions_G] == [True, True, False]
    with pytest.raises(ValueError, match="of no programs"):
        judge_verdicts(answers(None))


class _Nobody:
    def judge(self, prompt: Prompt, texts_G: object):
        raise AssertionError("no program was asked for")


def _no_verifier():
    raise AssertionError("nothing needs to run")
