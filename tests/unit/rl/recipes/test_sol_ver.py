"""Sol-Ver: what a problem's programs and tests accept and reject, and what a round learns."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from conf.recipes import SolVerArgs
from rl.loss import DpoObjective, NllObjective
from rl.metrics import check_names
from rl.packing import Packing, build_minibatch, split_minibatches
from rl.recipes.recipe import Lesson
from rl.recipes.sol_ver import Choice, Oracle, SolVer, choose
from rl.step import Batch, learn
from rl.types import (
    BoolArray,
    Evidence,
    Extraction,
    JudgedGroup,
    JudgeKind,
    Prompt,
    Reason,
    Score,
    Task,
    Verdict,
)
from tests.unit.rl.fakes import (
    FakeFleet,
    make_group,
    make_judged,
    make_prompts,
    setup,
    with_support,
)

pytestmark = pytest.mark.unit

# Programs: passes three tests, one, none, none. Tests: passed by all that run, by two, by one, by
# one; and one that no program passes.
PASSED = np.array(
    [
        [1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ],
    np.bool_,
)
# All that run pass test 0; the right ones, 1 and 2, pass test 1; the wrong one passes 2 to 4.
GOLD_PASSED = np.array(
    [[1, 0, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], np.bool_
)
VALID = np.array([1, 1, 1, 0], np.bool_)
READABLE = np.ones(5, np.bool_)
ALONE = np.zeros(5, np.int32)  # all tests are of one group


def choice_of(passed: BoolArray, valid: BoolArray, accept: float) -> Choice | None:
    """The choice among readable tests of one group."""
    num = passed.shape[1]
    return choose(passed, valid, READABLE[:num], ALONE[:num], accept)


def test_the_accepted_pair_agrees_and_tells_and_the_rejected_ones_disagree_most():
    # Test 0 is passed by every program that runs, so it tells nothing; of 1 and 2 most pass 1.
    assert choose(PASSED, VALID, READABLE, ALONE, 0.5) == Choice(0, worse=3, test=1, worse_test=4)


@pytest.mark.parametrize(
    ("groups", "test", "worse_test"),
    [
        ([0, 0, 1, 1, 1], 2, 4),  # nothing stands beside 1 that could be rejected
        ([0, 1, 0, 0, 1], 1, 4),
        ([0, 1, 0, 1, 0], 1, 3),  # 4 is passed by fewer programs, but is of another prompt
        ([0, 0, 0, 1, 1], 1, None),
    ],
)
def test_the_rejected_test_is_of_the_group_of_the_accepted_one(
    groups: list[int], test: int, worse_test: int | None
):
    group_M = np.array(groups, np.int32)
    choice = choose(PASSED, VALID, READABLE, group_M, 0.5)
    assert choice == Choice(0, worse=3, test=test, worse_test=worse_test)


def test_a_test_that_cannot_be_read_is_rejected_and_never_accepted():
    readable = np.array([1, 0, 1, 1, 1], np.bool_)
    found = choose(PASSED, VALID, readable, ALONE, 0.5)
    assert found is not None and found.test == 2
    alone = choose(PASSED[:, :3], VALID, np.array([1, 1, 0], np.bool_), ALONE[:3], 0.5)
    assert alone is not None and (alone.test, alone.worse_test) == (1, 2)


@pytest.mark.parametrize(
    ("passed", "valid", "accept"),
    [
        (PASSED, VALID, 0.7),  # the best passes three of five
        (PASSED, ~VALID & False, 0.1),
        (PASSED[:, :0], VALID, 0.1),
    ],
)
def test_nothing_is_accepted_below_the_share_or_without_programs_or_tests(passed, valid, accept):
    assert choice_of(passed, valid, accept) is None


def test_programs_that_agree_on_everything_accept_one_and_reject_none():
    passed = np.ones((3, 2), np.bool_)
    assert choice_of(passed, passed[:, 0], 0.5) == Choice(0, worse=None)


def no_oracle(problem: Prompt, text: str) -> None:
    """Nothing is known of any test."""
    del problem, text


def recipe(oracle: Oracle = no_oracle, **args: object) -> SolVer:
    def request(problem: Prompt, program: str) -> Prompt:
        return dataclasses.replace(problem, tests=None, meta=program)

    made = SolVerArgs(**args)  # pyright: ignore[reportArgumentType]  # by name
    return SolVer(setup(), made, request, oracle)


def bundle(problem: Prompt, passed: Sequence[bool] | None) -> list[JudgedGroup]:
    """Four programs, the last of which cannot be run, and five tests of them."""
    programs = make_judged(make_group(problem, 4), [0.0] * 4, passed)
    bad = Extraction(reason=Reason.SYNTAX)
    codes = [Extraction(reason=Reason.OK, code=f"x = {n}") for n in (1, 2, 2)]
    programs = dataclasses.replace(programs, extractions_G=(*codes, bad))
    ask = dataclasses.replace(
        programs.group.ask, prompt=dataclasses.replace(problem, id=f"{problem.id}#test-0")
    )
    made = make_judged(make_group(ask.prompt, 5), [0.0] * 5)
    tests = dataclasses.replace(
        made,
        group=dataclasses.replace(
            made.group, ask=dataclasses.replace(ask, problem=problem, task=Task.TEST)
        ),
        judge=JudgeKind.MATRIX,
        evidence=Evidence(passed_NM=PASSED),
    )
    return [programs, tests]


def in_two_groups(problem: Prompt) -> list[JudgedGroup]:
    """The same tests from two prompts: the first two, and the other three."""
    programs, tests = bundle(problem, None)
    parts: list[JudgedGroup] = []
    for number, part in enumerate((slice(0, 2), slice(2, 5))):
        prompt = dataclasses.replace(problem, id=f"{problem.id}#test-{number}")
        group = make_group(prompt, len(range(5)[part]))
        ask = dataclasses.replace(tests.group.ask, prompt=prompt)
        parts.append(
            dataclasses.replace(
                tests,
                group=dataclasses.replace(group, ask=ask),
                extractions_G=tests.extractions_G[part],
                scores_G=tests.scores_G[part],
                rewards_G=tests.rewards_G[part],
                evidence=Evidence(passed_NM=PASSED[:, part]),
            )
        )
    return [programs, *parts]


@pytest.mark.parametrize("num", [2, 3])
def test_no_minibatch_cuts_a_pair_whose_tests_see_programs(num: int):
    groups = [group for problem in make_prompts(3) for group in in_two_groups(problem)]
    lesson = recipe().teach(1, groups, {})
    preferred = lesson.updates[1]
    pairs = list(zip(preferred.samples[::2], preferred.samples[1::2], strict=True))
    assert len(pairs) == 6
    assert all(chosen.prompt_id == rejected.prompt_id for chosen, rejected in pairs)
    minibatches = split_minibatches(preferred.samples, num)
    assert len(minibatches) == num
    for samples in minibatches:
        packing = Packing(num_ranks=1, microbatch_tokens=64)
        assert build_minibatch(samples, packing, group_of=2).num_samples == len(samples)
        assert all(
            a.prompt_id == b.prompt_id for a, b in zip(samples[::2], samples[1::2], strict=True)
        )


def taught(
    passed: Sequence[bool] | None, num: int = 2, oracle: Oracle = no_oracle, **args: object
) -> Lesson:
    groups = [group for problem in make_prompts(num) for group in bundle(problem, passed)]
    return recipe(oracle, **args).teach(1, groups, {})


def test_tests_are_asked_beside_programs_or_for_each_different_program():
    problems = make_prompts(2)
    beside = recipe(tests_see="problem", num_tests=5)
    assert [(a.prompt.id, a.sampling.group_size) for a in beside.ask(1, problems, {})] == [
        ("p0", 3),
        ("p0#test-0", 5),
        ("p1", 3),
        ("p1#test-0", 5),
    ]
    programs, tests = bundle(problems[0], None)
    assert beside.follow_up(1, [programs, tests]) == []
    after = recipe(num_tests=5)
    assert [ask.task for ask in after.ask(1, problems, {})] == [Task.CODE] * 2
    asked = after.follow_up(1, [programs])
    assert [(ask.prompt.id, ask.prompt.meta) for ask in asked] == [
        ("p0#test-0", "x = 1"),
        ("p0#test-1", "x = 2"),
    ]
    assert len(recipe(num_programs=1).follow_up(1, [programs])) == 1
    assert after.follow_up(1, [tests]) == []  # which ends the round


def test_a_round_imitates_what_is_accepted_and_prefers_it_in_pairs_of_both_tasks():
    lesson = taught(None)
    imitated, preferred = lesson.updates
    assert imitated.objective == NllObjective()
    assert [(s.prompt_id, s.sample_idx) for s in imitated.samples] == [
        ("p0", 0),
        ("p0#test-0", 1),
        ("p1", 0),
        ("p1#test-0", 1),
    ]
    assert preferred.objective == DpoObjective(beta=0.1, reference="start")
    assert [(s.prompt_id, s.sample_idx) for s in preferred.samples][:4] == [
        ("p0", 0),
        ("p0", 3),
        ("p0#test-0", 1),
        ("p0#test-0", 4),
    ]
    assert [a.tolist() for a in lesson.advantages_PG[:2]] == [[1, 0, 0, -1], [0, 1, 0, 0, -1]]
    assert [len(taught(None, learn=one).updates) for one in ("sft", "dpo")] == [1, 1]


def test_what_is_learned_is_likely_among_all_tokens_and_not_those_it_was_sampled_among():
    groups = [with_support(group) for group in bundle(make_prompts(1)[0], None)]
    samples = [
        sample for update in recipe().teach(1, groups, {}).updates for sample in update.samples
    ]
    assert len(samples) == 6
    assert all(sample.support_TK is None for sample in samples)


def test_without_a_filter_the_first_program_and_test_are_imitated():
    lesson = taught(None, 1, filter="none", learn="sft", accept=1.0)
    (imitated,) = lesson.updates
    assert [(s.prompt_id, s.sample_idx) for s in imitated.samples] == [("p0", 0), ("p0#test-0", 0)]


def test_gold_tests_as_a_filter_accept_what_is_right_whatever_the_policy_agrees_on():
    # Right are programs 1 and 2; both pass test 0, which tells nothing of those that run.
    right, wrong = Verdict.PASSED, Verdict.WRONG_ANSWER
    (problem,) = make_prompts(1)
    programs, tests = bundle(problem, None)
    seen = dataclasses.replace(tests, evidence=Evidence(passed_NM=GOLD_PASSED))
    gold = recipe(filter="gold", accept=1.0)
    scores = [Score(value=0.0, verdict=one) for one in (wrong, right, right, Verdict.UNJUDGED)]
    judged = dataclasses.replace(programs, scores_G=tuple(scores))
    lesson = gold.teach(1, gold.grade([judged, seen]), {})
    imitated, preferred = lesson.updates
    assert [(s.prompt_id, s.sample_idx) for s in imitated.samples] == [("p0", 1), ("p0#test-0", 1)]
    # What could not be judged is no rejected program, and the test that right ones fail is no good.
    assert [s.sample_idx for s in preferred.samples] == [1, 0, 1, 2]
    nobody = dataclasses.replace(programs, scores_G=(scores[0],) * 4)
    assert gold.teach(1, gold.grade([nobody, seen]), {}).num_samples == 0
    assert gold.labels == "gold_tests"


def test_gold_tests_measure_what_is_accepted_and_change_nothing_of_what_is_learned():
    blind = taught(None)
    assert blind.metrics == {"task/pair/accepted": 1.0}
    expected = {
        # The accepted program 0 is wrong; the right program 2 fails the accepted test 1.
        (False, False, True, False): (0.0, 0.0, 1.0),
        (True, False, False, False): (1.0, 1.0, 0.0),
        (False, True, False, False): (0.0, 1.0, 0.0),
    }
    for passed, figures in expected.items():
        lesson = taught(passed)
        names = ("program_right", "test_right", "collusion")
        assert tuple(lesson.metrics[f"task/pair/{name}"] for name in names) == figures
        check_names(lesson.metrics)
        for ours, theirs in zip(lesson.updates, blind.updates, strict=True):
            assert [s.sample_idx for s in ours.samples] == [s.sample_idx for s in theirs.samples]
    assert recipe().labels == "none"


@pytest.mark.parametrize(
    ("known", "figures"),
    [
        (None, {"program_right": 0.0, "unknown": 1.0}),
        (True, {"program_right": 0.0, "unknown": 0.0, "test_right": 1.0, "collusion": 0.0}),
        (False, {"program_right": 0.0, "unknown": 0.0, "test_right": 0.0, "collusion": 1.0}),
    ],
)
def test_where_no_program_is_right_an_oracle_measures_the_test_and_teaches_nothing(
    known: bool | None, figures: dict[str, float]
):
    asked: list[tuple[str, str]] = []

    def oracle(problem: Prompt, text: str) -> bool | None:
        asked.append((problem.id, text))
        return known

    lesson = taught([False] * 4, oracle=oracle)
    found = {name: value for name, value in lesson.metrics.items() if name.startswith("task/pair/")}
    assert found == {"task/pair/accepted": 1.0} | {f"task/pair/{k}": v for k, v in figures.items()}
    check_names(lesson.metrics)
    (_, tests) = bundle(make_prompts(1)[0], None)
    assert asked == [(name, tests.extractions_G[1].code) for name in ("p0", "p1")]
    blind = taught([False] * 4)
    for ours, theirs in zip(lesson.updates, blind.updates, strict=True):
        assert [s.sample_idx for s in ours.samples] == [s.sample_idx for s in theirs.samples]


def test_a_right_program_has_the_word_before_an_oracle():
    lesson = taught([True, False, False, False], oracle=lambda *_: False)
    assert lesson.metrics["task/pair/test_right"] == 1.0
    assert lesson.metrics["task/pair/unknown"] == 0.0


@pytest.mark.parametrize("kind", ["masked", "empty"])
def test_an_answer_that_cannot_be_learned_is_in_no_pair_and_counts_for_nothing(kind: str):
    """The worst program and the worst test, and the test that would have been accepted."""
    (problem,) = make_prompts(1)
    left_out = [
        without(group, kind, places)
        for group, places in zip(bundle(problem, None), ([3], [1, 4]), strict=True)
    ]
    lesson = recipe().teach(1, left_out, {})
    imitated, preferred = lesson.updates
    assert [(s.prompt_id, s.sample_idx) for s in imitated.samples] == [("p0", 0), ("p0#test-0", 2)]
    assert [s.sample_idx for s in preferred.samples] == [0, 1, 2, 3]
    build_minibatch(preferred.samples, Packing(num_ranks=1, microbatch_tokens=64), group_of=2)
    nothing = [without(g, kind, list(range(5))[: len(g.scores_G)]) for g in bundle(problem, None)]
    assert recipe().teach(1, nothing, {}).num_samples == 0


def without(group: JudgedGroup, kind: str, places: Sequence[int]) -> JudgedGroup:
    """The group with some completions masked, or without a token."""
    if kind == "masked":
        masked_G = np.isin(np.arange(len(group.scores_G)), places)
        return dataclasses.replace(group, masked_G=masked_G)
    none = {"token_ids": np.zeros(0, np.int32), "rollout_logprobs": np.zeros(0, np.float32)}
    completions_G = tuple(
        dataclasses.replace(one, **none) if index in places else one
        for index, one in enumerate(group.group.completions_G)
    )
    inner = dataclasses.replace(group.group, completions_G=completions_G)
    return dataclasses.replace(group, group=inner)


def test_the_reference_of_the_dpo_is_the_policy_after_the_imitation_of_the_round():
    groups = [group for problem in make_prompts(2) for group in bundle(problem, None)]
    two = SolVer(setup(minibatches_per_step=2), SolVerArgs(), lambda problem, _: problem, no_oracle)
    lesson = two.teach(1, groups, {})
    fleet = FakeFleet()
    batch = Batch(groups_P=tuple(groups), lesson=lesson, started_s=0.0)
    asyncio.run(learn(1, batch, fleet, on_policy=True))
    done = [what for what, _ in fleet.events if what in {"logprobs", "update"}]
    assert done == ["update", "update", "logprobs", "logprobs", "update", "update"]
    assert [given for what, given in fleet.events if what == "update"] == ["own"] * 2 + [
        "given"
    ] * 2
