"""The probe is apart from training and evaluation, and its figures mean what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rl.problems import minipy
from rl.run.probe import ProbeLog, carve, choose, exec_agreement, minipy_probe, probe_reading
from rl.types import JudgedGroup, JudgeKind, Message, Prompt, Score, Verdict
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


def with_tests(num: int) -> list[Prompt]:
    return [dataclasses.replace(prompt, tests="[]") for prompt in make_prompts(num)]


def judged(*scores: float | None) -> JudgedGroup:
    group = make_judged(make_group(make_prompts(1)[0], len(scores)), [s or 0.0 for s in scores])
    return dataclasses.replace(group, scores_G=tuple(Score(value=score) for score in scores))


def test_the_problems_of_minipy_are_in_no_training_and_no_test_split() -> None:
    test_split = minipy.make_prompts("eval", 120, 0)
    probe = minipy_probe("flat", 64, test_split)
    questions = {prompt.question for prompt in probe}
    assert len(questions) == len(probe) == 64
    assert not questions & {prompt.question for prompt in test_split}
    for seed in range(3):
        assert not questions & {p.question for p in minipy.make_prompts("train", 4000, seed)}
    assert all(prompt.tests for prompt in probe)


def test_carving_is_disjoint_small_and_the_same_every_time() -> None:
    train = with_tests(200)
    rest, probe = carve(train, [], num=64, needed=16)
    assert len(probe) == 20 and len(rest) == 180  # a tenth at most
    assert {p.id for p in rest} | {p.id for p in probe} == {p.id for p in train}
    assert carve(list(reversed(train)), [], num=64, needed=16)[1] == probe
    assert len(carve(train, [], num=17, needed=16)[1]) == 17


def test_carving_leaves_what_a_step_needs_and_takes_no_probe_that_is_too_small() -> None:
    train = with_tests(200)
    assert len(carve(train, [], num=64, needed=182)[0]) == 182
    assert carve(train, [], num=64, needed=190) == (train, [])
    assert carve(with_tests(150), [], num=64, needed=4)[1] == []


def test_problems_without_tests_and_those_of_the_evaluation_are_not_taken() -> None:
    train = [*with_tests(100), *make_prompts(300)[100:]]
    held_out = train[:50]
    probe = carve(train, held_out, num=64, needed=16)[1]
    assert len(probe) == 30
    assert all(prompt.tests is not None for prompt in probe)
    assert not {p.id for p in probe} & {p.id for p in held_out}
    assert carve(make_prompts(300), [], num=64, needed=16)[1] == []


def test_a_problem_of_the_probe_stays_in_training_under_no_other_id() -> None:
    train = with_tests(100)
    twins = [dataclasses.replace(prompt, id=f"twin-{prompt.id}") for prompt in train]
    rest, probe = carve([*train, *twins], [], num=20, needed=16)
    assert not {p.question for p in rest} & {p.question for p in probe}
    assert len(rest) == 160


def test_a_choice_depends_on_ids_and_needs_tests() -> None:
    prompts = [*with_tests(30), Prompt(id="untested", messages=(Message("user", "?"),))]
    assert choose(prompts, 10) == choose(prompts[::-1], 10)
    assert "untested" not in {prompt.id for prompt in choose(prompts, 31)}


def test_agreement_counts_pairs_within_a_problem_and_ties_half() -> None:
    one = judged(3.0, 1.0, 2.0, None)  # right: 3.0 and 1.0; wrong: 2.0, and one without code
    two = judged(9.0, 9.0)
    assert exec_agreement([one], [(True, True, False, False)]) == pytest.approx(1 / 2)
    assert exec_agreement([two], [(True, False)]) == pytest.approx(1 / 2)
    both = exec_agreement([one, judged(5.0, -5.0)], [(True, True, False, False), (True, False)])
    assert both == pytest.approx(2 / 3)


def test_agreement_never_compares_across_problems_and_needs_a_pair() -> None:
    # Scores of different problems are on levels of their own: 100 for wrong, 1 for right.
    assert exec_agreement([judged(100.0), judged(1.0)], [(False,), (True,)]) is None
    by_tests = dataclasses.replace(judged(1.0, 0.0), judge=JudgeKind.EXECUTION)
    assert exec_agreement([by_tests], [(True, False)]) is None


def test_agreement_takes_no_completion_that_execution_could_not_judge() -> None:
    group = judged(2.0, 1.0, 3.0)
    scores = (*group.scores_G[:2], dataclasses.replace(group.scores_G[2], verdict=Verdict.UNJUDGED))
    group = dataclasses.replace(group, scores_G=scores)
    assert exec_agreement([group], [(True, False, False)]) == 1.0


def test_a_reading_has_shares_and_mean_rewards_of_each_problem() -> None:
    found = probe_reading(7, [judged(1.0, 3.0), judged(0.0, 0.0)], [(True, False), (False, False)])
    assert found.step == 7
    assert found.passed_P.tolist() == [0.5, 0.0]
    assert found.rewards_P.tolist() == [2.0, 0.0]
    assert (found.pass_at_1, found.reward) == (0.25, 1.0)


def test_a_resumed_run_reads_the_probes_up_to_its_checkpoint(tmp_path: Path) -> None:
    log = ProbeLog(tmp_path / "probe.jsonl")
    assert list(log.keep_until(3, 2)) == []
    for step in (0, 5, 10):
        log.write(probe_reading(step, [judged(1.0), judged(step)], [(True,), (False,)]))
    kept = list(log.keep_until(5, 2))
    assert [(found.step, found.rewards_P.tolist()) for found in kept] == [
        (0, [1.0, 0.0]),
        (5, [1.0, 5.0]),
    ]
    assert [found.step for found in log.keep_until(10, 2)] == [0, 5]
    assert list(log.keep_until(10, 64)) == []  # of another probe: not comparable
