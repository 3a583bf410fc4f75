"""Execution matrices of a step: which programs of a problem pass which of its tests.

They are put together from the rows of the answers; what is right is said by the problems' own tests
alone, and not where they did not run.

Axes: N programs and M tests of one problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

from rl.run.rollouts import RolloutRow
from rl.types import Task, Verdict

_PROGRAMS = (Task.CODE, Task.STEP)


class Worth(StrEnum):
    """What a program or a test is worth, where that is known."""

    TELLING = "telling"  # of a test: right, and a wrong program fails it
    RIGHT = "right"
    WRONG = "wrong"
    INVALID = "invalid"  # no program, or no test that can be read
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The programs and the tests of one problem, by the places of their rows."""

    programs_N: tuple[int, ...]
    tests_M: tuple[int, ...]
    cells_NM: tuple[tuple[bool | None, ...], ...]  # whether it passes; None: it was not run
    programs_worth_N: tuple[Worth, ...]
    tests_worth_M: tuple[Worth, ...]

    def shown(self, num_rows: int) -> dict[str, Any]:
        """Plain values of what is of the first `num_rows` rows."""
        num_programs = sum(place < num_rows for place in self.programs_N)
        num_tests = sum(place < num_rows for place in self.tests_M)
        return {
            "programs": self.programs_N[:num_programs],
            "tests": self.tests_M[:num_tests],
            "cells": [cells_M[:num_tests] for cells_M in self.cells_NM[:num_programs]],
            "programs_worth": self.programs_worth_N[:num_programs],
            "tests_worth": self.tests_worth_M[:num_tests],
        }


def matrices_of(rows: Sequence[RolloutRow]) -> list[Matrix]:
    """The matrices of a step, whose rows are ordered by problem and, of one, as they were asked."""
    numbered = groupby(enumerate(rows), key=lambda pair: pair[1].problem)
    return [matrix for _, pairs in numbered for matrix in _matrix(list(pairs))]


def _matrix(pairs: Sequence[tuple[int, RolloutRow]]) -> Iterator[Matrix]:
    """The matrix of a problem, where one of its tests was run."""
    tests_M = [(place, row) for place, row in pairs if row.task == Task.TEST]
    if all(row.passed_by is None for _, row in tests_M):
        return
    programs_N = [(place, row) for place, row in pairs if row.task in _PROGRAMS]
    cells_NM = tuple(
        tuple(_cell(row, test.passed_by, index) for _, test in tests_M)
        for index, (_, row) in enumerate(programs_N)
    )
    programs_worth_N = tuple(_worth_of_program(row) for _, row in programs_N)
    yield Matrix(
        programs_N=tuple(place for place, _ in programs_N),
        tests_M=tuple(place for place, _ in tests_M),
        cells_NM=cells_NM,
        programs_worth_N=programs_worth_N,
        tests_worth_M=tuple(
            _worth_of_test([cells_M[index] for cells_M in cells_NM], programs_worth_N)
            if test.code
            else Worth.INVALID
            for index, (_, test) in enumerate(tests_M)
        ),
    )


def _cell(program: RolloutRow, passed_by: str | None, index: int) -> bool | None:
    """A test that was judged before a program was asked for was not run on it."""
    if passed_by is None or not program.code or index >= len(passed_by):
        return None
    return passed_by[index] == "1"


def _worth_of_program(row: RolloutRow) -> Worth:
    if not row.code:
        return Worth.INVALID
    if row.verdict is None or not row.verdict.is_label:
        return Worth.UNKNOWN
    return Worth.RIGHT if row.verdict is Verdict.PASSED else Worth.WRONG


def _worth_of_test(cells_N: Sequence[bool | None], programs_worth_N: Sequence[Worth]) -> Worth:
    """As the figures of tests count it (`rl.recipes.cure`): what was not run is not passed.

    A test is right when every right program passes it; without one, nothing is known of it. It is
    telling when a wrong program fails it; programs of which nothing is known do not count.
    """
    pairs = list(zip(cells_N, programs_worth_N, strict=True))
    by_right = [cell is True for cell, worth in pairs if worth is Worth.RIGHT]
    if not by_right:
        return Worth.UNKNOWN
    if not all(by_right):
        return Worth.WRONG
    by_wrong = [cell is True for cell, worth in pairs if worth is Worth.WRONG]
    return Worth.RIGHT if all(by_wrong) else Worth.TELLING
