"""Each step has its share of problems without tests, whatever the order of the others."""

from __future__ import annotations

import pytest

from conf.errors import DataError
from rl.problems.mixing import MixedSampler
from rl.types import Prompt

pytestmark = pytest.mark.unit

TESTED = [Prompt(id=f"t{i}", messages=(), tests="[]") for i in range(6)]
UNTESTED = [Prompt(id=f"u{i}", messages=()) for i in range(20)]
MIXED = [*TESTED[:3], *UNTESTED, *TESTED[3:]]


def test_every_step_has_so_many_without_tests_and_is_a_function_of_its_number() -> None:
    sampler = MixedSampler(MIXED, 7, 8, 5)
    steps = [sampler.take(8, step) for step in range(1, 13)]
    assert all(sum(p.tests is None for p in step) == 5 for step in steps)
    assert all(len({p.id for p in step}) == 8 for step in steps)
    assert MixedSampler(MIXED, 7, 8, 5).take(8, 9) == steps[8]  # a run that goes on
    assert MixedSampler(MIXED, 8, 8, 5).take(8, 9) != steps[8]


def test_either_part_has_epochs_of_its_own() -> None:
    sampler = MixedSampler(MIXED, 0, 8, 5)
    steps = [sampler.take(8, step) for step in (1, 2, 3, 4)]
    asked = [p.id for step in steps for p in step]
    assert sorted(name for name in asked if name[0] == "u") == sorted(p.id for p in UNTESTED)
    assert sorted(name for name in asked if name[0] == "t") == sorted(2 * [p.id for p in TESTED])


@pytest.mark.parametrize(("num", "num_untested", "what"), [(12, 5, "with"), (24, 21, "without")])
def test_a_part_that_is_too_small_is_refused(num: int, num_untested: int, what: str) -> None:
    with pytest.raises(DataError, match=f"data.untested_share: a step takes .* {what} tests, and"):
        MixedSampler(MIXED, 0, num, num_untested)
