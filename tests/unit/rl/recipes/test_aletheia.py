"""Aletheia: lists of programs of the same step, what a choice earns, and what the exam says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from conf.recipes import AletheiaArgs
from rl.lessons.lineups import Known
from rl.loss import DpoObjective, NllObjective, PolicyObjective
from rl.recipes.aletheia import Aletheia
from rl.types import (
    Ask,
    Extraction,
    JudgedGroup,
    JudgeKind,
    Lineup,
    Message,
    Prompt,
    Reason,
    Score,
    Task,
    Verdict,
)
from tests.unit.rl.fakes import make_group, make_judged, make_prompts, setup, with_support

pytestmark = pytest.mark.unit


def request(problem: Prompt, lineup: Lineup, prompt_id: str) -> Prompt:
    return Prompt(id=prompt_id, messages=(Message("user", " ".join(lineup.codes_N)),))


def aletheia(
    fits: object = lambda _: True,
    given: Mapping[str, Sequence[Known]] | None = None,
    **args: object,
) -> Aletheia:
    made = AletheiaArgs(**args)  # pyright: ignore[reportArgumentType]  # by name
    return Aletheia(setup(fits=fits), made, request, given or {})


def programs(problem: Prompt, num_passed: Sequence[int | None]) -> JudgedGroup:
    """Programs c0, c1, ... that pass so many of four tests; None has no code."""
    judged = make_judged(make_group(problem, len(num_passed)), [0.0] * len(num_passed))
    extractions = [
        Extraction(reason=Reason.SYNTAX)
        if n is None
        else Extraction(reason=Reason.OK, code=f"c{i}")
        for i, n in enumerate(num_passed)
    ]
    scores = [
        Score(
            value=None if n is None else n / 4,
            verdict=Verdict.PASSED if n == 4 else Verdict.WRONG_ANSWER,
            num_passed=n,
            num_tests=4,
        )
        for n in num_passed
    ]
    return dataclasses.replace(
        judged,
        extractions_G=tuple(extractions),
        scores_G=tuple(scores),
        judge=JudgeKind.EXECUTION,
    )


def verdicts(ask: Ask, chosen: Sequence[str]) -> JudgedGroup:
    """Answers that name these programs; "" cannot be read."""
    assert ask.lineup is not None
    letters = dict(zip(ask.lineup.codes_N, ask.lineup.letters_N, strict=True))
    made = make_judged(make_group(ask.prompt, len(chosen)), [0.0] * len(chosen))
    extractions = [
        Extraction(reason=Reason.OK, code=letters[code])
        if code
        else Extraction(reason=Reason.EMPTY)
        for code in chosen
    ]
    return dataclasses.replace(
        made,
        group=dataclasses.replace(made.group, ask=ask),
        extractions_G=tuple(extractions),
        judge=JudgeKind.VERDICT,
    )


def followed(recipe: Aletheia, num_passed: Sequence[int | None], step: int = 1) -> list[Ask]:
    (problem,) = make_prompts(1)
    return list(recipe.follow_up(step, [programs(problem, num_passed)]))


def test_a_list_is_asked_of_the_programs_that_were_just_run():
    recipe = aletheia(num_programs=(3,), group_size=5)
    (problem,) = make_prompts(1)
    assert [ask.task for ask in recipe.ask(1, [problem], {})] == [Task.CODE]
    (ask,) = followed(recipe, [4, 0, 2, None])
    assert ask.task is Task.VERDICT and ask.problem.id == "p0"
    assert ask.sampling.group_size == 5
    assert ask.lineup is not None and sorted(ask.lineup.codes_N) == ["c0", "c1", "c2"]
    assert ask.lineup.codes_N["ABC".index(ask.lineup.right or "")] == "c0"
    assert recipe.follow_up(1, [verdicts(ask, ["c0", "c1"])]) == ()  # nothing follows a list


def test_lists_are_a_function_of_the_step_and_of_the_problem():
    recipe = aletheia(num_programs=(2,), num_lists=3)
    found = [followed(recipe, [4, 0, 1, 2, 3, 4], step) for step in (1, 1, 2)]
    assert [ask.lineup for ask in found[0]] == [ask.lineup for ask in found[1]]
    assert [ask.lineup for ask in found[0]] != [ask.lineup for ask in found[2]]
    assert len({ask.prompt.id for ask in found[0]}) == 3


def test_no_list_is_asked_that_has_no_right_program_or_is_too_long():
    assert followed(aletheia(), [0, 1, 2]) == []
    assert followed(aletheia(), [4, 4]) == []
    assert followed(aletheia(fits=lambda _: False), [4, 0]) == []


def test_given_programs_are_asked_about_at_once_and_others_are_sampled():
    first, second = make_prompts(2)
    given = {first.question: [Known("x", 1.0), Known("y", 0.5)]}
    recipe = aletheia(given=given)
    asks = recipe.ask(1, [first, second], {})
    assert [(ask.problem.id, ask.task) for ask in asks] == [("p0", Task.VERDICT), ("p1", Task.CODE)]
    assert recipe.labels == "gold_tests" and aletheia().labels is None


@pytest.mark.parametrize(
    ("reward", "expected"),
    [("right", [1.0, 0.0, 0.0, -1.0]), ("distance", [1.0, -0.4, -0.8, -1.0])],
)
def test_a_choice_earns_what_its_program_is_worth_and_nothing_readable_the_least(
    reward: str, expected: list[float]
):
    recipe = aletheia(num_programs=(3,), reward=reward)
    (ask,) = followed(recipe, [4, 2, 0])
    code = programs(ask.problem, [4, 2, 0])
    graded = recipe.grade([code, verdicts(ask, ["c0", "c1", "c2", ""])])
    assert graded[0] is code
    assert graded[1].rewards_G == pytest.approx(expected)


@pytest.mark.parametrize(("learn", "kept"), [("grpo", True), ("raft", False), ("dpo", False)])
def test_what_is_imitated_or_preferred_is_likely_among_all_tokens(learn: str, kept: bool):
    recipe = aletheia(num_programs=(2,), learn=learn)
    (ask,) = followed(recipe, [4, 0])
    bundle = recipe.grade([with_support(verdicts(ask, ["c0", "c1"]))])
    samples = recipe.teach(1, bundle, {}).updates[0].samples
    assert samples
    assert all((sample.support_TK is not None) == kept for sample in samples)


def taught(learn: str):
    recipe = aletheia(num_programs=(2,), learn=learn)
    (ask,) = followed(recipe, [4, 0])
    bundle = recipe.grade([programs(ask.problem, [4, 0]), verdicts(ask, ["c0", "c1", "", "c0"])])
    return recipe.teach(1, bundle, {})


def test_verdicts_are_learned_and_programs_are_not():
    lesson = taught("grpo")
    (update,) = lesson.updates
    assert isinstance(update.objective, PolicyObjective) and update.needs_old
    assert {sample.prompt_id for sample in update.samples} == {"p0#list-0"}
    assert np.all(lesson.advantages_PG[0] == 0)
    assert lesson.advantages_PG[1] == pytest.approx([0.75, -0.25, -1.25, 0.75])
    assert lesson.metrics == {
        "task/verdict/num_groups": 1.0,
        "task/verdict/readable": 0.75,
        "task/verdict/right": 0.5,
        "task/verdict/chance": 0.5,
    }


def test_raft_learns_the_right_answers_alone():
    (update,) = taught("raft").updates
    assert isinstance(update.objective, NllObjective) and not update.needs_old
    assert [sample.sample_idx for sample in update.samples] == [0, 3]


def test_dpo_prefers_right_answers_to_wrong_ones_of_the_same_list():
    recipe = aletheia(num_programs=(2,), learn="dpo", beta=0.3)
    bundles: list[JudgedGroup] = []
    answers = [["c1", "c0", "", "c0", "c1", "c0"], ["c0", "c0"]]
    for problem, chosen in zip(make_prompts(2), answers, strict=True):
        code = programs(problem, [4, 0])
        (ask,) = recipe.follow_up(1, [code])
        bundles += recipe.grade([code, verdicts(ask, chosen)])
    lesson = recipe.teach(1, bundles, {})
    (update,) = lesson.updates
    assert update.objective == DpoObjective(beta=0.3, reference="initial")
    assert (update.group_of, update.needs_old, recipe.needs_reference) == (2, False, True)
    # Chosen, then rejected; what cannot be read is in no pair, nor is a list without a wrong one.
    assert [(s.prompt_id, s.sample_idx) for s in update.samples] == [
        *(("p0#list-0", 1), ("p0#list-0", 0), ("p0#list-0", 3), ("p0#list-0", 4))
    ]
    assert [list(signs_G) for signs_G in lesson.advantages_PG] == [
        *([0, 0], [-1, 1, 0, 1, -1, 0], [0, 0], [0, 0])
    ]


def test_dpo_learns_nothing_from_a_masked_answer():
    recipe = aletheia(num_programs=(2,), learn="dpo")
    (ask,) = followed(recipe, [4, 0])
    masked = dataclasses.replace(verdicts(ask, ["c0", "c1"]), masked_G=np.array([False, True]))
    assert recipe.teach(1, [programs(ask.problem, [4, 0]), masked], {}).num_samples == 0


def test_a_step_without_any_list_teaches_nothing():
    (problem,) = make_prompts(1)
    lesson = aletheia().teach(1, [programs(problem, [0, 0])], {})
    assert lesson.num_samples == 0
    assert lesson.metrics == {"task/verdict/num_groups": 0.0}


def test_the_exam_chooses_without_knowing_what_is_right():
    recipe = aletheia(num_programs=(2,))
    (problem,) = make_prompts(1)
    code = programs(problem, [4, 0, 2, None])
    asks = recipe.examine([code], setup().sampling)
    lists = [ask for ask in asks if "#list-" in ask.prompt.id]
    choices = [ask for ask in asks if "#choice-" in ask.prompt.id]
    assert len(lists) == 1
    assert sorted(c for a in choices if a.lineup for c in a.lineup.codes_N) == [
        *("c0", "c0", "c1", "c1", "c2", "c2")
    ]
    assert recipe.examine([verdicts(lists[0], ["c0"])], setup().sampling) == ()


def test_marks_are_of_lists_and_of_choices_apart():
    recipe = aletheia(num_programs=(3,))
    (problem,) = make_prompts(1)
    code = programs(problem, [4, 0, 2, None])
    asks = recipe.examine([code], setup().sampling)
    answers = {"list": ["c0", "c1", "", ""], "choice": ["c2", "c2", "c0", "c0", "c1"]}
    groups = [code]
    for ask in asks:
        kind = "list" if "#list-" in ask.prompt.id else "choice"
        groups.append(verdicts(ask, answers[kind]))
    marks = recipe.mark(groups)
    assert marks["eval/verdict_right"] == 0.25
    assert marks["eval/verdict_readable"] == 0.5
    assert marks["eval/verdict_chance"] == pytest.approx(1 / 3)
    assert marks["eval/verdict_majority"] == 0.0  # no answer is the most frequent one
    assert marks["eval/best_of_by_verdicts"] == 0.5  # c0 and c2 share the choice
    assert marks["eval/best_of_at_random"] == pytest.approx(1 / 3)
    assert marks["eval/verdict_tau"] == pytest.approx(2 / 6**0.5)


def test_a_problem_whose_programs_were_not_all_asked_about_is_no_best_of_n():
    recipe = aletheia()
    (problem,) = make_prompts(1)
    assert recipe.mark([programs(problem, [4, 0])]) == {}
