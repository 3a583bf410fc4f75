"""CRPE, stage 3: where an answer goes wrong, and the pair of steps that is learned."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pytest

from conf.errors import DataError
from conf.recipes import CrpeArgs, is_anchored
from rl.loss import DpoObjective, NllObjective
from rl.metrics import check_names
from rl.recipes.crpe import Crpe, Fork, fork_of
from rl.step import Batch, learn, sample_and_judge
from rl.types import Ask, Finish, JudgedGroup, Prompt, PromptGroup, Sample, Task
from tests.unit.rl.fakes import FakeFleet, make_group, make_judged, make_prompts, setup

pytestmark = pytest.mark.unit

WRONG = "a-b-c-d"
RIGHT = "a-x-y-z"
ALL = {"", "a-", "a-b-", "a-b-c-"}


def test_the_first_step_fails_after_which_nothing_right_was_seen():
    found = fork_of(WRONG, [RIGHT, "a-b-q-d", "a-b-r"], ALL, "-")
    assert found == Fork(2, 4, "a-b-", "q-", "c-", False, False, "a-b-q-d", WRONG)
    ends = fork_of(WRONG, [RIGHT, "a-b-r"], ALL, "-")
    assert ends == Fork(2, 4, "a-b-", "r", "c-", True, False, "a-b-r", WRONG)


def test_a_right_answer_through_a_step_says_that_the_step_is_not_the_one():
    found = fork_of(WRONG, [RIGHT, "a-b-c-e"], ALL, "-")
    assert found == Fork(3, 4, "a-b-c-", "e", "d", True, True, "a-b-c-e", WRONG)


@pytest.mark.parametrize(
    ("right", "seen"),
    [
        ([], ALL),  # nothing is known to be better
        (["x-y"], {""}),  # nobody went on from the first step: it may be fine
        ([RIGHT], {"", "a-"}),  # nor from the second
    ],
)
def test_where_nobody_looked_or_nothing_is_better_there_is_no_fork(
    right: Sequence[str], seen: set[str]
):
    assert fork_of(WRONG, right, seen, "-") is None


def test_a_wrong_answer_that_only_ends_too_early_has_no_wrong_step():
    assert fork_of("x y", ["x y z"], {"", "x"}, "(?= )") is None


def encode(prompt: Prompt, answer: str, *, prefix: str = "", ends: bool = True) -> Sample:
    """A token for each character, 0 for the end."""
    if "!" in answer:
        raise DataError("too long")
    start = [ord(c) for c in prompt.question[:2] + prefix]
    ids = [ord(c) for c in answer] + [0] * ends
    return Sample(
        prompt_id=prompt.id,
        sample_idx=0,
        token_ids=np.array([*start, *ids], np.int32),
        num_prompt_tokens=len(start),
        rollout_logprobs=np.zeros(len(ids), np.float32),
        advantage=0.0,
        policy_version=0,
    )


def crpe(learn: Literal["step", "answer", "sft"] = "step", **changes: object) -> Crpe:
    args = CrpeArgs(learn=learn, step_end="-", num_rollouts=2, beta=0.2)
    return Crpe(setup(encode=encode, **changes), args)


class Scripted(FakeFleet):
    """Says what a script has for each beginning, and knows that `RIGHT` and what ends in z pass."""

    def script(self, texts: Mapping[str, Sequence[str]]) -> None:
        rollout, reward = self.rollout, self.reward

        async def generate(asks: Sequence[Ask], step: int):
            del step
            for ask in asks:
                group = make_group(ask.prompt, len(texts[ask.prefix]), 6)
                yield dataclasses.replace(
                    group,
                    ask=ask,
                    completions_G=tuple(
                        dataclasses.replace(completion, text=text)
                        for completion, text in zip(
                            group.completions_G, texts[ask.prefix], strict=True
                        )
                    ),
                )

        def judge_one(group: PromptGroup) -> JudgedGroup:
            passed = [completion.text.endswith("z") for completion in group.completions_G]
            return make_judged(group, [float(one) for one in passed], passed)

        rollout.generate = generate  # pyright: ignore[reportAttributeAccessIssue]
        reward.judge_one = judge_one


TEXTS = {
    "": ["a-b-c-d", RIGHT],
    "a-": ["a-b-c-q", "a-w-z"],
    "a-b-": ["a-b-z", "a-b-c-d"],
    "a-b-c-": ["a-b-c-d", "a-b-c-e"],
}


async def judged(recipe: Crpe, texts: Mapping[str, Sequence[str]]) -> tuple[JudgedGroup, ...]:
    fleet = Scripted()
    fleet.script(texts)

    async def then(bundle: Sequence[JudgedGroup]) -> Sequence[JudgedGroup]:
        return bundle

    asks = recipe.ask(7, make_prompts(1), {})
    return await sample_and_judge(7, fleet, asks, then, lambda b: recipe.follow_up(7, b))


def test_every_beginning_of_the_wrong_program_is_gone_on_from_and_one_pair_of_steps_is_learned():
    recipe = crpe()
    groups = asyncio.run(judged(recipe, TEXTS))
    asked = [(g.task, g.group.ask.prefix, g.group.ask.sampling.group_size) for g in groups]
    assert asked == [
        (Task.CODE, "", 3),
        (Task.STEP, "a-", 2),
        (Task.STEP, "a-b-", 2),
        (Task.STEP, "a-b-c-", 2),
    ]
    lesson = recipe.teach(7, groups, {})
    (update,) = lesson.updates
    assert update.objective == DpoObjective(beta=0.2, reference="initial")
    assert (update.group_of, update.needs_old, recipe.needs_reference) == (2, False, True)
    chosen, rejected = update.samples
    shared = chosen.num_prompt_tokens
    assert chosen.token_ids[:shared].tolist() == rejected.token_ids[:shared].tolist()
    assert bytes(chosen.token_ids[shared:].tolist()) == b"z\0"  # its last step, with its end
    assert bytes(rejected.token_ids[shared:].tolist()) == b"c-"
    assert {sample.policy_version for sample in update.samples} == {6}
    assert lesson.metrics == {
        "task/step/pairs": 1.0,
        "task/step/right": pytest.approx(1 / 3),
        "task/step/number": 2.0,
        "task/step/num_steps": 4.0,
    }


@pytest.mark.parametrize(
    ("learn", "answers", "objective"),
    [
        ("answer", ["a-b-z", WRONG], DpoObjective(beta=0.2, reference="initial")),
        ("sft", ["a-b-z"], NllObjective()),
    ],
)
def test_the_controls_learn_whole_answers_of_the_same_problems(
    learn: Literal["answer", "sft"], answers: list[str], objective: object
):
    recipe = crpe(learn)
    groups = asyncio.run(judged(recipe, TEXTS))
    asked = [group.group.ask.prefix for group in groups]
    assert asked == [group.group.ask.prefix for group in asyncio.run(judged(crpe(), TEXTS))]
    lesson = recipe.teach(7, groups, {})
    (update,) = lesson.updates
    assert (update.objective, update.group_of) == (objective, len(answers))
    learned = [
        bytes(sample.token_ids[sample.num_prompt_tokens :].tolist()).decode()
        for sample in update.samples
    ]
    assert learned == [f"{answer}\0" for answer in answers]
    assert {sample.num_prompt_tokens for sample in update.samples} == {2}  # nothing is given
    assert lesson.metrics == crpe().teach(7, groups, {}).metrics
    assert recipe.needs_reference is is_anchored("crpe", {"learn": learn}) is (learn == "answer")


def test_metrics_of_programs_leave_out_those_that_were_given_a_beginning():
    recipe = crpe()
    groups = asyncio.run(judged(recipe, TEXTS))
    fleet = FakeFleet()
    batch = Batch(groups_P=groups, lesson=recipe.teach(7, groups, {}), started_s=0.0)
    report = asyncio.run(learn(7, batch, fleet, on_policy=True))
    assert report.metrics["reward/mean"] == 0.5
    assert report.metrics["rollout/staleness"] == 0.0
    check_names(report.metrics)


@pytest.mark.parametrize("texts", [["a-z", "b-z"], ["a-b", "c-d"]])
def test_a_problem_without_a_right_or_without_a_wrong_program_is_not_looked_at(texts: list[str]):
    recipe = crpe()
    groups = asyncio.run(judged(recipe, {"": texts}))
    assert len(groups) == 1
    lesson = recipe.teach(7, groups, {})
    assert lesson.num_samples == 0
    assert lesson.metrics == {"task/step/pairs": 0.0}


def test_beginnings_that_are_too_long_are_not_asked_and_end_the_search():
    recipe = crpe(fits=lambda prompt, prefix="": len(prefix) < 5)
    groups = asyncio.run(judged(recipe, TEXTS))
    assert [group.group.ask.prefix for group in groups] == ["", "a-", "a-b-"]
    assert recipe.teach(7, groups, {}).num_samples == 0  # the third step may be fine


def test_a_step_of_too_many_tokens_is_left_out():
    recipe = crpe()
    texts = {**TEXTS, "a-b-": ["a-b-!z", "a-b-c-d"]}
    assert recipe.teach(7, asyncio.run(judged(recipe, texts)), {}).num_samples == 0


def test_an_answer_that_the_budget_cut_off_is_neither_right_nor_wrong():
    recipe = crpe()
    groups = asyncio.run(judged(recipe, TEXTS))
    programs = groups[0].group
    cut = tuple(dataclasses.replace(one, finish=Finish.LENGTH) for one in programs.completions_G)
    group = dataclasses.replace(groups[0], group=dataclasses.replace(programs, completions_G=cut))
    assert recipe.follow_up(7, [group]) == ()
