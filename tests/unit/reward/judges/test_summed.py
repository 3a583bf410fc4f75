"""Several judges of one completion: what each says is kept, and the sum depends on no timing."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from conf.errors import SandboxError
from conf.schema import LengthConfig
from reward.code.extract import ExtractConfig
from reward.judges.judge import Judge, Judged
from reward.judges.summed import MEASURES, Component, MeasureJudge, SumJudge
from rl.types import Extraction, JudgeKind, Message, Prompt, Reason, Score, Verdict

pytestmark = pytest.mark.unit

PROMPT = Prompt(id="p", messages=(Message("user", "Add."),))
ONE, TWO = "```python\nx = 1\n```", "```python\nx = 1\n```\n```python\ny = 2\n```"
LENGTH = LengthConfig(from_chars=10, to_chars=20)


class Says:
    """A judge that says what it is told, after another has."""

    def __init__(
        self, rewards: Sequence[float], after: threading.Event | None = None, **more: object
    ) -> None:
        self._rewards, self._after, self._more = rewards, after, more
        self.done = threading.Event()

    def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
        """The same rewards for whatever is asked."""
        assert self._after is None or self._after.wait(30)
        self.done.set()
        said = {
            "extractions_G": (Extraction(reason=Reason.OK, code="x"),) * len(texts_G),
            "scores_G": tuple(Score(value=reward) for reward in self._rewards),
            "rewards_G": np.array(self._rewards, np.float32),
            "judge": JudgeKind.RM,
            "num_executed": 0,
        }
        return Judged(**(said | self._more))  # type: ignore[arg-type]


class Fails:
    """A judge whose sandbox does not work."""

    def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
        """Raise."""
        raise SandboxError("nothing can be run")


def summed(judges: Mapping[str, tuple[float, Judge]], texts: Sequence[str] = (ONE, TWO)) -> Judged:
    components = {name: Component(judge, weight) for name, (weight, judge) in judges.items()}
    return SumJudge(components, ExtractConfig()).judge(PROMPT, texts)


def measured(name: str, texts: Sequence[str]) -> list[float]:
    judge = MeasureJudge(MEASURES[name](LENGTH), ExtractConfig(rule="last_block"))
    return judge.judge(PROMPT, texts).rewards_G.tolist()


def test_the_reward_is_the_weighted_sum_and_every_part_of_it_is_kept():
    judged = summed({"model": (2.0, Says([3.0, 1.0])), "short": (-0.5, Says([1.0, 0.0]))})
    assert judged.rewards_G.tolist() == [5.5, 2.0]
    assert judged.judge is JudgeKind.SUM
    assert {name: part.rewards_G.tolist() for name, part in judged.parts.items()} == {
        "model": [3.0, 1.0],
        "short": [1.0, 0.0],
    }
    assert [part.weight for part in judged.parts.values()] == [2.0, -0.5]


def test_what_models_disagree_on_is_taken_off_the_sum_and_of_no_part():
    models = {"a": Component(Says([0.9, 0.5]), 0.5), "b": Component(Says([0.1, 0.5]), 0.5)}
    judged = SumJudge(models, ExtractConfig(), 0.5).judge(PROMPT, (ONE, ONE))
    assert judged.rewards_G.tolist() == pytest.approx([0.5 - 0.5 * 0.4, 0.5])
    assert judged.scores_G[0].value == pytest.approx(0.3)
    assert judged.parts["a"].rewards_G.tolist() == pytest.approx([0.9, 0.5])


def test_what_counts_as_a_program_is_the_rule_of_the_run_and_no_other_has_a_score():
    judged = summed({"model": (1.0, Says([3.0, 1.0]))})
    assert [e.reason for e in judged.extractions_G] == [Reason.OK, Reason.MANY_BLOCKS]
    assert [score.value for score in judged.scores_G] == [3.0, None]


def test_the_verdicts_are_those_of_the_component_that_runs_tests():
    tests = Says(
        [1.0, 0.0],
        judge=JudgeKind.EXECUTION,
        num_executed=2,
        scores_G=(
            Score(value=1.0, verdict=Verdict.PASSED, num_passed=2, num_tests=2),
            Score(value=0.0, verdict=Verdict.TIMEOUT, num_tests=2),
        ),
    )
    judged = summed({"model": (1.0, Says([3.0, 1.0])), "tests": (1.0, tests)})
    assert [score.verdict for score in judged.scores_G] == [Verdict.PASSED, Verdict.TIMEOUT]
    assert (judged.scores_G[0].num_passed, judged.num_executed) == (2, 2)


def test_components_are_asked_at_once_and_their_order_is_that_of_the_configuration():
    # 1e16 + 1 - 1e16 is 0 or 1, as the order of the terms has it.
    last = Says([1.0, 1.0])
    second = Says([1e16, 1e16], after=last.done)
    first = Says([1e16, 1e16], after=second.done)
    judges = {"a": (1.0, first), "b": (-1.0, second), "c": (1.0, last)}
    assert summed(judges).rewards_G.tolist() == [1.0, 1.0]


def test_a_component_that_cannot_judge_fails_the_group():
    with pytest.raises(SandboxError):
        summed({"model": (1.0, Says([1.0, 1.0])), "tests": (1.0, Fails())})


def test_length_grows_between_its_bounds_whatever_the_answer_holds():
    assert measured("length", ["", "x" * 10, "x" * 15, "x" * 20, "x" * 99]) == [0, 0, 0.5, 1, 1]


def test_form_is_one_block_that_parses_even_where_the_run_takes_the_last_of_several():
    texts = [ONE, TWO, "no code", "```python\ndef f(:\n```"]
    assert measured("format", texts) == [1.0, 0.0, 0.0, 0.0]


def test_the_form_is_that_of_a_program_in_the_language_of_the_problem():
    ruby = dataclasses.replace(PROMPT, meta='{"language": "ruby"}')
    judge = MeasureJudge(MEASURES["format"](LENGTH), ExtractConfig())
    texts = ["```ruby\nputs gets.to_i + 1\n```", "```python\nx = f(1)\n```"]
    assert judge.judge(ruby, texts).rewards_G.tolist() == [1.0, 0.0]
    assert judge.judge(PROMPT, texts).rewards_G.tolist() == [0.0, 1.0]
    judged = SumJudge({"form": Component(judge, 1.0)}, ExtractConfig()).judge(ruby, texts)
    assert [extraction.valid for extraction in judged.extractions_G] == [True, False]
