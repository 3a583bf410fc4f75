"""StepCoder: where programs begin, what they earn, and which of their tokens carry the loss."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from conf.errors import DataError
from conf.recipes import StepCoderArgs
from rl.loss import NllObjective
from rl.metrics import check_names
from rl.recipes.recipe import State
from rl.recipes.stepcoder import StepCoder, place_of_code, start_points, tokens_of_code
from rl.samples import given_sample
from rl.step import collect, learn
from rl.text.tokenizer import character_ends, decode, load_tokenizer
from rl.types import (
    Ask,
    BoolArray,
    Evidence,
    Executed,
    Extraction,
    IntArray,
    JudgedGroup,
    Message,
    Prompt,
    Reason,
    Sample,
    Score,
    Verdict,
)
from tests.unit.rl.fakes import FakeFleet, make_group, make_judged, make_prompts, setup

pytestmark = pytest.mark.unit

SOLUTION = "def f(x):\n    if x:\n        return 1\n    elif y:\n        return 2\n    return 3"
PROBLEM = Prompt(
    id="p0", messages=(Message("user", "Do."),), meta=json.dumps({"solution": SOLUTION})
)
STARTS = ("```python\ndef f(x):", "```python\ndef f(x):\n    if x:\n        return 1")


def ends(token_ids: IntArray) -> IntArray:
    """Every token is one character; the last, the end of sequence, is none."""
    return np.minimum(np.arange(1, len(token_ids) + 1), len(token_ids) - 1).astype(np.int32)


def encode(prompt: Prompt, answer: str, *, prefix: str = "", ends: bool = True) -> Sample:
    """A token for each character, 0 for the end."""
    if "long" in answer:
        raise DataError("too long")
    return given_sample(prompt.id, [ord(c) for c in f"?{prefix}"], [*map(ord, answer), *[0] * ends])


def stepcoder(fits: object = lambda *_: True, **args: object) -> StepCoder:
    made = StepCoderArgs(**args)  # pyright: ignore[reportArgumentType]  # by name
    return StepCoder(setup(fits=fits, ends=ends, encode=encode), made)


def answered(ask: Ask, passed: Sequence[bool]) -> JudgedGroup:
    judged = make_judged(make_group(ask.prompt, len(passed)), list(map(float, passed)), passed)
    return dataclasses.replace(judged, group=dataclasses.replace(judged.group, ask=ask))


def went_through(recipe: StepCoder, shares: Sequence[Sequence[bool]]) -> tuple[list[str], State]:
    """The prefixes of one problem over the steps, and the state after them."""
    state, prefixes = recipe.start(), list[str]()
    for step, passed in enumerate(shares, start=1):
        (ask,) = recipe.ask(step, [PROBLEM], state)
        prefixes.append(ask.prefix)
        state = json.loads(json.dumps(recipe.remember(step, [answered(ask, passed)], state)))
    return prefixes, state


# ---------------------------------------------------------------- curriculum


def test_starts_are_the_conditional_statements_of_the_solution():
    assert start_points(SOLUTION) == [s.removeprefix("```python\n") for s in STARTS]
    assert start_points("if x:\n    pass") == start_points("def f(:") == start_points("x = 1") == []


def test_a_start_moves_from_the_last_conditional_to_none_as_programs_become_right():
    right, wrong = [True, True], [False, False]
    prefixes, state = went_through(stepcoder(), [wrong, wrong, right, right, right, wrong, right])
    first, second = STARTS
    assert prefixes == [second] * 3 + [first, "", "", ""]
    assert state == {"starts": {"p0": [0, 0.75]}}


def test_the_threshold_is_on_the_moving_average():
    half, few = [True, False], [True, False, False, False]
    assert went_through(stepcoder(), [half] * 3)[0] == [*reversed(STARTS), ""]
    assert went_through(stepcoder(), [few] * 4)[0] == [STARTS[1]] * 4
    assert went_through(stepcoder(threshold=0.2), [few] * 3)[0] == [*reversed(STARTS), ""]


def test_a_run_that_goes_on_from_the_state_repeats_one_that_was_not_interrupted():
    recipe, shares = stepcoder(), [[True, False], [False, False], [True, True], [True, True]]
    whole, _ = went_through(recipe, shares)
    _, state = went_through(recipe, shares[:2])
    (ask,) = stepcoder().ask(3, [PROBLEM], state)
    assert ask.prefix == whole[2]


def test_a_group_that_was_asked_before_its_start_moved_moves_it_no_further():
    recipe = stepcoder()
    (old,) = recipe.ask(1, [PROBLEM], recipe.start())
    state = recipe.remember(1, [answered(old, [True])], recipe.start())
    assert recipe.remember(2, [answered(old, [True])], state) == state


@pytest.mark.parametrize(("curriculum", "prefix"), [("fixed", STARTS[1]), ("none", "")])
def test_the_controls_begin_always_at_the_last_conditional_or_never(curriculum: str, prefix: str):
    recipe = stepcoder(curriculum=curriculum)
    assert went_through(recipe, [[True]] * 3)[0] == [prefix] * 3
    assert recipe.labels == ("gold_tests, gold_code" if prefix else None)


def test_problems_without_a_solution_and_starts_that_do_not_fit_have_no_prefix():
    recipe = stepcoder()
    (bare,) = make_prompts(1)
    assert [ask.prefix for ask in recipe.ask(1, [bare], recipe.start())] == [""]
    short = stepcoder(fits=lambda _, prefix: len(prefix) < 25)
    assert [ask.prefix for ask in short.ask(1, [PROBLEM], short.start())] == [STARTS[0]]


def test_held_out_programs_are_never_begun():
    assert [ask.prefix for ask in stepcoder().exam([PROBLEM], setup().sampling)] == [""]


# ---------------------------------------------------------------- rewards


def test_rewards_are_those_of_the_paper_unless_the_judges_are_wanted():
    verdicts = (Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR, Verdict.TIMEOUT, None)
    judged = make_judged(make_group(PROBLEM, 5), [1.0, 0, 0, 0, 0])
    scores = tuple(Score(value=None if v is None else 0.0, verdict=v) for v in verdicts)
    judged = dataclasses.replace(judged, scores_G=scores)
    (graded,) = stepcoder().grade([judged])
    np.testing.assert_allclose(graded.rewards_G, [1, -0.3, -0.6, -0.6, -1])
    assert stepcoder(rewards="judge").grade([judged]) == [judged]
    by_model = make_judged(make_group(PROBLEM, 2), [3.0, 4.0])
    assert list(stepcoder().grade([by_model])) == [by_model]


def with_verdicts(group: JudgedGroup, *verdicts: Verdict) -> JudgedGroup:
    scores = tuple(Score(value=0.0, verdict=verdict) for verdict in verdicts)
    return dataclasses.replace(group, scores_G=scores)


def test_a_program_that_cannot_be_judged_teaches_nothing_and_moves_no_start():
    recipe = stepcoder(mask="none")
    passed, wrong, unknown = Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.UNJUDGED
    group = with_verdicts(make_judged(make_group(PROBLEM, 3), [1.0, 0, 0]), passed, wrong, unknown)
    (graded,) = recipe.grade([group])
    lesson = recipe.teach(1, [graded], recipe.start())
    assert [sample.sample_idx for sample in lesson.updates[0].samples] == [0, 1]
    assert lesson.advantages_PG[0].tolist() == pytest.approx([0.65, -0.65, 0])
    alike = with_verdicts(group, wrong, wrong, unknown)
    (graded,) = recipe.grade([alike])
    assert recipe.teach(1, [graded], recipe.start()).metrics["task/code/all_alike"] == 1.0

    (ask,) = recipe.ask(1, [PROBLEM], recipe.start())
    half = with_verdicts(answered(ask, [True, False, False]), passed, unknown, unknown)
    assert recipe.remember(1, [half], recipe.start()) == {"starts": {"p0": [1, None]}}
    nothing = with_verdicts(answered(ask, [False] * 2), unknown, unknown)
    assert recipe.remember(1, [nothing], recipe.start()) == recipe.start()


# ---------------------------------------------------------------- the control


def test_the_control_imitates_the_rest_of_the_solution_after_the_same_starts():
    recipe, rl = stepcoder(learn="sft"), stepcoder()
    shares = [[False, False], [True, True], [True, True], [True, True]]
    assert went_through(recipe, shares) == went_through(rl, shares)
    state, learned = recipe.start(), list[str]()
    for step, passed in enumerate(shares, start=1):
        (ask,) = recipe.ask(step, [PROBLEM], state)
        assert not ask.covered
        lesson = recipe.teach(step, [answered(ask, passed)], state)
        (update,) = lesson.updates
        assert (update.objective, update.needs_old) == (NllObjective(), False)
        (sample,) = update.samples
        assert sample.policy_version == step - 1
        text = "".join(map(chr, sample.token_ids))
        given, learned_text = text[: sample.num_prompt_tokens], text[sample.num_prompt_tokens :]
        assert given == f"?{ask.prefix}"
        assert text == f"?```python\n{SOLUTION}\n```\0"
        learned.append(learned_text)
        check_names(lesson.metrics)
        state = recipe.remember(step, [answered(ask, passed)], state)
    assert [len(text) for text in learned] == sorted(map(len, learned))
    assert len(set(learned)) == 3  # from both conditional statements, and the whole


def test_the_control_leaves_out_what_has_no_solution_or_is_too_long():
    recipe = stepcoder(learn="sft")
    long = dataclasses.replace(PROBLEM, id="p1", meta=json.dumps({"solution": "long = 1"}))
    asks = recipe.ask(1, [*make_prompts(1), long], recipe.start())
    groups = [answered(ask, [True]) for ask in asks]
    assert recipe.teach(1, groups, recipe.start()).num_samples == 0


@pytest.mark.parametrize(
    ("curriculum", "labels"),
    [("reverse", "gold_tests, gold_code"), ("fixed", "gold_code"), ("none", "gold_code")],
)
def test_the_control_learns_from_tests_only_where_they_move_a_start(curriculum: str, labels: str):
    assert stepcoder(learn="sft", curriculum=curriculum).labels == labels


# ---------------------------------------------------------------- the mask

CODE = "a\nbb\nccc\nd"  # lines 2 and 4 are left out below
TEXT = f"<{CODE}>"


def program(text: str = TEXT, prefix: str = "", lines: tuple[int, ...] = (2, 4)) -> JudgedGroup:
    """Two answers of one token a character, the first of which leaves lines out."""
    group = make_group(PROBLEM, 2)
    size = len(text) - len(prefix) + 1
    completions = tuple(
        dataclasses.replace(
            one,
            text=text,
            token_ids=np.arange(size, dtype=np.int32),
            rollout_logprobs=np.zeros(size, np.float32),
        )
        for one in group.completions_G
    )
    ask = dataclasses.replace(group.ask, prefix=prefix)
    judged = make_judged(
        dataclasses.replace(group, ask=ask, completions_G=completions), (1.0, 0.0), (True, False)
    )
    seen = Executed(left_lines=lines, num_branches=2, num_taken=1)
    return dataclasses.replace(
        judged,
        extractions_G=(Extraction(reason=Reason.OK, code=CODE),) * 2,
        evidence=Evidence(executed_G=(seen, None)),
    )


def masks(recipe: StepCoder, group: JudgedGroup, step: int = 1) -> list[BoolArray | None]:
    (update,) = recipe.teach(step, [group], recipe.start()).updates
    return [sample.loss_mask for sample in update.samples]


def hidden(recipe: StepCoder, group: JudgedGroup, step: int = 1) -> list[int]:
    (mask, other) = masks(recipe, group, step)
    assert other is None  # nothing is known of it, so that all is learned
    return [] if mask is None else np.flatnonzero(~mask).tolist()


def test_tokens_of_lines_that_no_test_executes_carry_no_loss():
    assert hidden(stepcoder(), program()) == [3, 4, 5, 10]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("```python\n", "\n```\nIn short:\n" + CODE),
        ("```python\n", f"\n```\n{CODE}"),
        (f"At first\n{CODE}\n```\n\n", "\n```"),
        (f"```\n{CODE}\n```\nor rather\n~~~\n", "\n~~~"),  # the last block
        (f"{CODE} in a list:\n- ```\n", "\n  ```\nDone."),
    ],
)
def test_what_repeats_the_program_beside_its_block_takes_no_mask(before: str, after: str):
    text = f"{before}{CODE}{after}"
    assert place_of_code(text, CODE) == len(before)
    first = len(before)
    most = stepcoder(most_hidden=1.0)
    assert hidden(most, program(text)) == [first + i for i in (2, 3, 4, 9)]


def test_tokens_of_a_begun_program_are_those_that_were_sampled():
    assert hidden(stepcoder(), program(prefix="<a\nb")) == [0, 1, 6]


def test_a_token_that_touches_an_executed_line_is_learned():
    recipe = stepcoder()
    pairs = dataclasses.replace(
        recipe.setup, ends=lambda ids: np.minimum(2 * np.arange(1, len(ids) + 1), 12)
    )
    joined = program()
    short = tuple(
        dataclasses.replace(c, token_ids=c.token_ids[:6], rollout_logprobs=c.rollout_logprobs[:6])
        for c in joined.group.completions_G
    )
    group = dataclasses.replace(joined.group, completions_G=short)
    again = StepCoder(pairs, StepCoderArgs())
    assert hidden(again, dataclasses.replace(joined, group=group)) == [2]  # `b` and a line's end


def test_with_a_real_tokenizer_nothing_but_text_of_lines_that_were_left_out_is_hidden():
    tokenizer: Any = load_tokenizer("assets/minipy/policy", "model")
    code = "def f(xs):\n    if sum(xs) > 3:\n        return max(xs)\n    else:\n        return 7"
    text = f"```python\n{code}\n```"
    ids = np.array([*tokenizer(text)["input_ids"], tokenizer.eos_token_id], np.int32)
    ends = character_ends(tokenizer, ids)
    _, left = tokens_of_code(ends, 0, text, code, (3,))
    assert decode(tokenizer, ids[left]).strip() == "return max(xs)"
    _, left = tokens_of_code(ends, 0, text, code, (1, 2, 3, 4, 5))
    assert decode(tokenizer, ids[left]) == code


def test_the_controls_are_no_mask_as_many_tokens_at_random_and_the_inverse():
    assert hidden(stepcoder(mask="none"), program()) == []
    drawn = [hidden(stepcoder(mask="random"), program(), step) for step in range(1, 9)]
    assert {len(found) for found in drawn} == {4} and len(set(map(tuple, drawn))) > 4
    assert all(0 < index < 11 for found in drawn for index in found)  # of the program
    assert drawn[0] == hidden(stepcoder(mask="random"), program())
    assert hidden(stepcoder(mask="inverted"), program()) == [1, 2, 6, 7, 8, 9]


def test_a_report_that_would_hide_too_much_is_not_believed():
    everything = program(lines=(1, 2, 3, 4))
    assert hidden(stepcoder(), everything) == []
    figures = stepcoder().teach(1, [everything], stepcoder().start()).metrics
    assert (figures["policy/masked_frac"], figures["task/code/not_believed"]) == (0.0, 0.5)
    assert len(hidden(stepcoder(most_hidden=1.0), everything)) == len(CODE)


def test_text_that_its_tokens_do_not_add_up_to_is_learned_as_a_whole():
    assert hidden(stepcoder(), program(text=f"{TEXT}!", prefix="")) == [3, 4, 5, 10]
    group = program()
    longer = tuple(dataclasses.replace(c, text=f"{c.text}!") for c in group.group.completions_G)
    other = dataclasses.replace(group.group, completions_G=longer)
    assert hidden(stepcoder(), dataclasses.replace(group, group=other)) == []


def test_the_metrics_say_what_was_hidden_begun_and_without_a_lesson():
    recipe = stepcoder()
    figures = recipe.teach(1, [program(prefix="<")], recipe.start()).metrics
    assert figures["policy/masked_frac"] == pytest.approx(4 / 24)
    assert figures["task/code/begun"] == 1.0
    assert figures["task/code/all_alike"] == 0.0
    assert figures["task/code/left_out"] == 0.5


def test_a_step_runs_on_the_recipe():
    fleet, recipe = FakeFleet(), stepcoder()

    async def run() -> dict[str, float]:
        batch = await collect(1, fleet, recipe, make_prompts(3), recipe.start())
        return dict((await learn(1, batch, fleet, on_policy=True)).metrics)

    metrics = asyncio.run(asyncio.wait_for(run(), 5.0))
    assert metrics["policy/masked_frac"] == 0.0 and metrics["policy/num_samples"] > 0
