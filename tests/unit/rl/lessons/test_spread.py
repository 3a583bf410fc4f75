"""Which problems teach, and which take the place of the others."""

import dataclasses
import math

import numpy as np
import pytest

from rl.lessons.spread import NO_REFILL, Refill, spread, without_loss
from rl.types import JudgedGroup, JudgeKind, Score, Task
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


def judged(*scores, kind=JudgeKind.RM, masked=None) -> JudgedGroup:
    (prompt,) = make_prompts(1)
    group = make_judged(make_group(prompt, len(scores)), [0.0] * len(scores))
    return dataclasses.replace(
        group,
        scores_G=tuple(Score(value=value) for value in scores),
        judge=kind,
        masked_G=None if masked is None else np.array(masked, np.bool_),
    )


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (judged(1.0, -2.0, 0.5), 3.0),
        (judged(1.5, 1.5), 0.0),
        (judged(1.5), 0.0),
        (judged(), 0.0),
        (judged(None, None), 0.0),  # all invalid
        (judged(None, 4.0), math.inf),  # valid code is above invalid code, whatever its score
        (judged(None, 0.0, kind=JudgeKind.EXECUTION), 0.0),  # no code and wrong code: both 0
        (judged(None, 1.0, kind=JudgeKind.EXECUTION), 1.0),
        (judged(9.0, 1.0, 1.5, masked=[True, False, False]), 0.5),
    ],
)
def test_the_spread_is_that_of_raw_scores(group, expected):
    assert spread(group) == expected


def test_a_problem_is_flat_when_no_program_of_it_scores_better_than_others():
    refill = Refill(min_spread=0.1)
    assert refill.is_flat([judged(0.0, 0.1)])
    assert not refill.is_flat([judged(0.0, 0.3)])
    assert not refill.is_flat([judged(0.0, 0.0), judged(0.0, 0.3)])
    assert not Refill().is_flat([judged(1.0, 1.0)])  # no tolerance: everything teaches


def test_answers_that_are_no_programs_are_never_flat():
    group = judged(None, None)
    ask = dataclasses.replace(group.group.ask, task=Task.TEST)
    tests = dataclasses.replace(group, group=dataclasses.replace(group.group, ask=ask))
    assert not Refill(min_spread=0.1).is_flat([tests])


def test_nothing_is_learned_of_a_flat_group():
    assert not without_loss(judged(1.0, 1.0)).taught_G.any()


def test_each_place_has_a_line_of_its_own():
    problems = make_prompts(7)
    refill = Refill.of(problems[:2], problems[2:], 0.0)
    assert list(refill.places(["p0", "p1"])) == ["p0", "p2", "p4", "p6", "p1", "p3", "p5"]
    assert list(NO_REFILL.places(["p1", "p1", "p0"])) == ["p1", "p0"]
