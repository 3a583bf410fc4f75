"""Each kind of process, killed in each phase: the run ends as one that was left alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import get_args

import pytest

from launch.benches.faults.faults import Phase, Target
from launch.benches.faults.matrix import fault_of, try_fault
from launch.benches.faults.runs import Ended, run_small

pytestmark = pytest.mark.chaos

CELLS = list(itertools.product(get_args(Target), get_args(Phase)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The run that is left alone."""
    ended = run_small(tmp_path_factory.mktemp("whole"))
    assert ended.code == 0, ended.said[-3000:]
    return ended


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("target", "phase"), CELLS)
def test_a_run_whose_process_is_killed_ends_as_one_that_was_left_alone(
    tmp_path: Path, whole: Ended, target: Target, phase: Phase
) -> None:
    assert try_fault(fault_of(target, phase, seed=0), whole, tmp_path).wrong == ()
