"""Each kind of process, killed in each phase: the run ends as one that was left alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import get_args

import pytest

from launch.benches.faults.faults import Phase, Target
from launch.benches.faults.matrix import Wholes, fault_of, try_fault

pytestmark = pytest.mark.chaos

CELLS = list(itertools.product(get_args(Target), get_args(Phase)))


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    """The runs that are left alone."""
    return Wholes(tmp_path_factory.mktemp("whole"))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("target", "phase"), CELLS)
def test_a_run_whose_process_is_killed_ends_as_one_that_was_left_alone(
    tmp_path: Path, wholes: Wholes, target: Target, phase: Phase
) -> None:
    assert try_fault(fault_of(target, phase, seed=0), wholes.beside(target), tmp_path).wrong == ()
