"""Each kind of process, killed in every phase: runs end as one that was left alone."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from launch.benches.faults.faults import Target
from launch.benches.faults.matrix import PHASES, Wholes, runs_of, take_course

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    """The runs that are left alone."""
    return Wholes(tmp_path_factory.mktemp("whole"))


@pytest.mark.timeout(2700)
@pytest.mark.parametrize("target", get_args(Target))
def test_a_run_whose_processes_are_killed_ends_as_one_that_was_left_alone(
    tmp_path: Path, wholes: Wholes, target: Target
) -> None:
    for number, faults in enumerate(runs_of(target, PHASES, seed=0)):
        course = take_course(faults, wholes.beside(target), tmp_path / str(number))
        assert (course.wrong, course.struck) == ((), frozenset(faults))
