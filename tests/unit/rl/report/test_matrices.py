"""Matrices say which programs pass which tests, and what both are worth where that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rl.recipes.cure import figures_of_tests
from rl.report.matrices import Worth, matrices_of
from rl.run.rollouts import rollout_rows
from rl.types import Verdict
from tests.unit.rl.fakes import group_of_tests, make_group, make_judged, make_prompts
from tests.unit.rl.report.runs import bundle, rows

pytestmark = pytest.mark.unit


def test_each_problem_with_tests_that_were_run_has_a_matrix() -> None:
    first, second = matrices_of(bundle(1))
    assert (first.programs_N, first.tests_M) == ((0, 1, 2), (3, 4))
    assert (second.programs_N, second.tests_M) == ((5, 6, 7), (8, 9))
    assert first.cells_NM == ((True, True), (True, False), (None, None))
    assert first.programs_worth_N == (Worth.RIGHT, Worth.WRONG, Worth.INVALID)


def test_programs_alone_and_tests_that_no_file_says_anything_of_have_none() -> None:
    assert matrices_of(rows(1)) == []
    assert matrices_of([replace(row, passed_by=None) for row in bundle(1)]) == []


def test_a_test_that_cannot_be_read_was_not_run() -> None:
    given_rows = [
        replace(row, code="", reason="no_block", passed_by=None) if row.passed_by == "100" else row
        for row in bundle(1)
    ]
    matrix, _ = matrices_of(given_rows)
    assert matrix.cells_NM == ((True, None), (True, None), (None, None))
    # The wrong program passes the first; that the answer without code does not tells nothing.
    assert matrix.tests_worth_M == (Worth.RIGHT, Worth.INVALID)


@pytest.mark.parametrize("verdict", [None, Verdict.UNJUDGED])
def test_nothing_is_said_where_the_problems_own_tests_did_not_judge(verdict: Verdict) -> None:
    (matrix, _) = matrices_of([replace(row, verdict=verdict) for row in bundle(1)])
    assert matrix.programs_worth_N == (Worth.UNKNOWN, Worth.UNKNOWN, Worth.INVALID)
    assert set(matrix.tests_worth_M) == {Worth.UNKNOWN}
    assert matrix.cells_NM[1] == (True, False)


def test_a_program_that_was_asked_for_later_was_not_run_on_the_tests_before_it() -> None:
    first = bundle(1)[:5]
    later = replace(first[1], prompt_id="p0#more", problem_id="p0", verdict=None)
    (matrix,) = matrices_of([*first, later])
    assert matrix.programs_N == (0, 1, 2, 5)
    assert matrix.cells_NM[3] == (None, None)


@given(st.data())
def test_tests_are_worth_what_the_figures_of_a_run_say(data: st.DataObject) -> None:
    num_programs, num_tests, num_unreadable = 4, 5, data.draw(st.integers(0, 2))
    passed_NM = data.draw(arrays(np.bool_, (num_programs, num_tests)))
    passed_NM[:, :num_unreadable] = False
    is_right = data.draw(st.lists(st.booleans(), min_size=num_programs, max_size=num_programs))
    (problem,) = make_prompts(1)
    groups = [
        make_judged(make_group(problem, num_programs), [0.0] * num_programs, is_right),
        group_of_tests(problem, passed_NM, num_unreadable),
    ]
    (matrix,) = matrices_of(list(rollout_rows(1, groups, None)))
    found, figures = matrix.tests_worth_M, figures_of_tests(groups)
    if not any(is_right):
        assert found == (Worth.INVALID,) * num_unreadable + (Worth.UNKNOWN,) * (5 - num_unreadable)
        return
    right = [worth in (Worth.RIGHT, Worth.TELLING) for worth in found]
    assert np.mean(right) == pytest.approx(figures["right"])
    if not all(is_right):
        telling = [worth is Worth.TELLING for worth in found]
        assert np.mean(telling) == pytest.approx(figures["telling"])
