"""Verdicts of a language model: what it is asked, what of its answers counts, what is not asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.jobs.verdicts import Chooser, EngineAsker, check_judge, gather_verdicts
from actors.plan.judging import JudgingPlan, plan_judging
from conf.commands.best_of_n import JudgeArgs
from conf.errors import EngineError, UserError
from conf.schema import RequestConfig
from reward.judges.chat import Answer
from reward.select.store import verdicts_store
from reward.select.verdicts import Verdicts
from rl.base.console import Console
from rl.run.evaluation_store import SampleRow
from rl.types import Ask, Finish, Message, Prompt, PromptGroup, SamplingConfig
from tests.settings import POLICY, best_of_n_args, run_config
from tests.unit.reward.judges.servers import serving
from tests.unit.reward.select.test_store import make_samples
from tests.unit.rl.fakes import make_completion

pytestmark = pytest.mark.unit

SECRET = '[{"input": [41], "output": 42}]'
Says = Callable[[str], str | None]  # of the text of a question


def problems(num: int = 1) -> tuple[Prompt, ...]:
    return tuple(
        Prompt(id=f"p{index}", messages=(Message("user", f"Write x ({index})."),), tests=SECRET)
        for index in range(num)
    )


def samples(codes: Sequence[str], num: int = 1) -> dict[str, list[SampleRow]]:
    """The same programs for each problem."""
    return {
        name: [replace(row, code=code, sample_idx=index) for index, code in enumerate(codes)]
        for name, (row,) in make_samples(num).items()
    }


def plan_of(num: int = 1, sizes: tuple[int, ...] = (1, 4), **judge: Any) -> JudgingPlan:
    return JudgingPlan(
        judge=JudgeArgs(model="judge", request=RequestConfig(tries=1), **judge),
        problems=problems(num),
        sizes=sizes,
        latency_problems=1,
        seed=0,
        engines=None,
        deadline_s=10.0,
        settings={},
    )


class FakeAsker:
    """Answers by the text of a question."""

    def __init__(self, says: Says) -> None:
        self.says = says
        self.calls: list[list[Prompt]] = []

    @property
    def asked(self) -> list[str]:
        return [question.question for call in self.calls for question in call]

    async def ask(self, questions: Sequence[Prompt]) -> list[Answer | None]:
        self.calls.append([*questions])
        return [Answer(self.says(question.question)) for question in questions]


def told(plan: JudgingPlan, codes: Sequence[str], says: Says) -> tuple[Verdicts, FakeAsker]:
    """What is found out about one problem, side by side with no other."""
    kept: list[Verdicts] = []
    asker = FakeAsker(says)
    chooser = Chooser(plan, asker, samples(codes, len(plan.problems)), kept.append)
    asyncio.run(chooser.side_by_side(plan.problems))
    return kept[0], asker


def names(program: str) -> Says:
    """Whoever finds a program in a list names it; another list has an answer without a letter."""

    def says(question: str) -> str:
        found = re.search(rf"^([A-Z]):\n```python\n{re.escape(program)}\n", question, re.MULTILINE)
        return f"It is so.\nbest = {found[1]}" if found else "None of them."

    return says


CODES = [f"x = {number}" for number in range(16)]


@pytest.mark.parametrize("favourite", [0, 7, 15])
def test_the_program_that_is_named_in_every_list_is_chosen(favourite: int) -> None:
    found, asker = told(plan_of(sizes=(16,)), CODES, names(CODES[favourite]))
    assert found.chosen == {"16": favourite}
    assert (found.num_requests, found.num_choices) == (5, 5)  # four lists of four, and the last
    assert (found.num_unread, found.num_undecided) == (3, 3)
    assert len(asker.calls) == 2  # a round at a time


def test_no_question_shows_a_test_or_a_repeated_program() -> None:
    codes = ["x = 1", "", "x = 1", "x = 2", "x = 1"]
    found, asker = told(plan_of(sizes=(5,)), codes, names("x = 2"))
    assert found.chosen == {"5": 3} and found.num_requests == 1
    for call in asker.calls:
        for question in call:
            assert question.tests is None and "41" not in question.question
            assert question.question.count("x = 1\n") == 1


def test_votes_on_a_list_begin_with_another_program_each() -> None:
    found, asker = told(plan_of(sizes=(3,), votes=3), CODES[:3], names("x = 1"))
    assert found.chosen == {"3": 1} and found.num_requests == 3
    assert found.num_undecided == found.num_unread == 0
    firsts = {re.findall(r"^A:\n```python\n(.*)\n", text, re.MULTILINE)[0] for text in asker.asked}
    assert firsts == {*CODES[:3]}
    assert len({question.id for question in asker.calls[0]}) == 3


def test_a_judge_that_always_names_the_first_letter_decides_nothing() -> None:
    """What the place of a program earns is shared out, and the earliest is taken."""
    found, _ = told(plan_of(sizes=(3,), votes=3), CODES[:3], lambda _: "best = A")
    assert found.chosen == {"3": 0}
    assert (found.num_unread, found.num_undecided, found.num_choices) == (0, 1, 1)


def test_smaller_sizes_choose_among_the_first_samples_and_are_not_counted() -> None:
    plan = plan_of(sizes=(1, 2, 8))
    found, _ = told(plan, CODES[:8], names("x = 5"))
    assert found.chosen is not None and found.chosen.keys() == {"2", "8"}
    assert found.chosen["8"] == 5 and found.chosen["2"] == 0
    assert found.num_requests == 3


def test_without_programs_to_choose_from_nothing_is_asked() -> None:
    for read_out in ("choice", "score"):
        for codes in (["", ""], ["", "x = 1"]):
            found, asker = told(plan_of(sizes=(2,), read_out=read_out), codes, names("x = 1"))
            assert asker.asked == [] and found.num_requests == found.num_choices == 0
            if read_out == "choice":
                assert found.chosen == {"2": codes.index("x = 1") if "x = 1" in codes else 0}


def test_a_number_for_each_program_is_the_mean_of_what_can_be_read() -> None:
    answers = iter(["score = 8", "score = 4", "score = 2", "well", "no", "score = 11"])
    plan = plan_of(read_out="score", votes=2, temperature=0.8)
    found, _ = told(plan, ["x = 1", "x = 2", "", "x = 1", "x = 3"], lambda _: next(answers))
    assert found.scores == pytest.approx([0.6, 0.2, None, 0.6, None])
    assert (found.num_requests, found.num_unread) == (6, 3)
    assert (found.num_choices, found.num_undecided) == (1, 0)


def test_equal_best_scores_are_no_choice() -> None:
    found, _ = told(plan_of(read_out="score"), CODES[:3], lambda _: "score = 0")
    assert found.num_undecided == 1
    unread, _ = told(plan_of(read_out="score"), CODES[:3], lambda _: None)
    assert unread.scores == [None] * 3 and unread.num_undecided == 1


def test_the_first_problems_are_asked_alone_and_timed() -> None:
    plan, kept = plan_of(num=2), list[Verdicts]()
    asker = FakeAsker(names("x = 1"))
    chooser = Chooser(plan, asker, samples(CODES[:4], 2), kept.append)
    asyncio.run(chooser.one_after_the_other(plan.problems))
    assert [found.problem_id for found in kept] == ["p0", "p1"]
    for found in kept:
        assert found.seconds is not None and found.seconds.keys() == {"judge"}
        assert found.seconds["judge"] > 0
    assert [question.id.split("#")[0] for (question,) in asker.calls] == ["warm-up", "p0", "p1"]


class FakeEngines:
    """Rollout engines that answer with what they are asked, cut off where it says so."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []

    async def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        self.asks += asks
        for ask in reversed(asks):
            cut = "cut" in ask.prompt.question
            made = make_completion(ask.prompt.id, 0)
            finish = Finish.LENGTH if cut else Finish.STOP
            yield PromptGroup(
                ask=ask,
                prompt_token_ids=np.zeros(1, dtype=np.int32),
                completions_G=(replace(made, text=ask.prompt.question, finish=finish),),
                engine="rollout-0",
                finished_s=0.0,
            )


def test_engines_answer_in_order_and_what_is_cut_off_or_too_long_says_nothing() -> None:
    engines = FakeEngines()
    model = replace(run_config().model, path=str(POLICY), max_prompt_tokens=64)
    asker = EngineAsker(engines, model, SamplingConfig(group_size=1, max_tokens=8))
    texts = ["xs", "cut", "xs " * 100, "f"]
    asked = [Prompt(id=str(i), messages=(Message("user", t),)) for i, t in enumerate(texts)]
    found = asyncio.run(asker.ask(asked))
    assert [answer and answer.text for answer in found] == ["xs", None, None, "f"]
    assert [ask.prompt.id for ask in engines.asks] == ["0", "1", "3"]


def served(path: str, body: Any) -> Any:
    if body is None:
        return {"data": [{"id": "judge"}]}
    text = names("def f(x):\n    return x")(body["messages"][0]["content"])
    found = names("x = 2")(body["messages"][0]["content"])
    said = found if "best" in (found or "") else text
    return {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}


def test_a_served_model_chooses_and_is_not_asked_again(tmp_path: Path) -> None:
    rows = samples(CODES[:4], 3)
    with serving(served) as server:
        plan = plan_of(num=3, url=(f"{server.url}/v1",), temperature=0.5, votes=2)
        check_judge(plan)
        store = verdicts_store(tmp_path, {})
        found = gather_verdicts(plan, rows, store, Console())
        num_asked = len(server.asked)
        again = gather_verdicts(plan, rows, store, Console())
        assert len(server.asked) == num_asked and again == found
    assert all(one.chosen == {"4": 2} for one in found.values())
    assert [one.seconds is not None for one in map(found.__getitem__, ("p0", "p1", "p2"))] == [
        True, False, False,
    ]  # fmt: skip
    bodies = [body for path, body in server.asked if body is not None]
    assert {body["temperature"] for body in bodies[-6:]} == {0.5}
    assert bodies[-1]["model"] == "judge"


def test_a_server_that_fails_is_named_in_the_words_of_the_command(tmp_path: Path) -> None:
    with serving(lambda path, body: (500, "down")) as server:
        plan = plan_of(url=(f"{server.url}/v1",))
        with pytest.raises(UserError, match=r"^judge\.url: http.* does not judge"):
            check_judge(plan)
        with pytest.raises(EngineError, match=r"judge\.url: no answer.*judge\.request\.tries") as e:
            gather_verdicts(plan, samples(CODES[:4]), verdicts_store(tmp_path, {}), Console())
        assert "reward." not in str(e.value)


def test_a_model_that_runs_here_has_engines_of_its_own(tmp_path: Path) -> None:
    judge = JudgeArgs(model=str(POLICY), request=RequestConfig(), max_tokens=100)
    args = best_of_n_args(tmp_path, judge=judge)
    plan = plan_judging(args, tmp_path, problems())
    assert plan.engines is not None and plan.engines.model.path == str(POLICY)
    assert plan.engines.model.max_completion_tokens == 100
    assert plan.engines.model.max_prompt_tokens == 512 - 100
    assert plan.settings["digest"] and plan.settings["sizes"] == [1, 2]
