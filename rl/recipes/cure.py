"""CURE: one policy writes programs and tests, and each judges the other (arXiv 2506.03136).

A test is worth something when right programs pass it and wrong ones do not. Which programs are
right say the problem's own tests, or, in CURE-RM, which is ours, a reward model: then the better
half of the programs counts as right, and no gold test is needed.

Axes: N programs and M tests of one problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conf.recipes import CureArgs, TestReward
from rl.advantage import batch_advantages
from rl.recipes.recipe import Lesson, Recipe, Setup, State, of_task
from rl.types import (
    Ask,
    BoolArray,
    FloatArray,
    IntArray,
    JudgedGroup,
    JudgeKind,
    Prompt,
    SamplingConfig,
    Task,
)

_SIDE_DECIMALS = 6  # a reward this close to the mean of its group is on neither side


class Cure(Recipe):
    """Programs and tests of every problem; `request` makes the prompt that asks for a test."""

    def __init__(self, setup: Setup, args: CureArgs, request: Callable[[Prompt], Prompt]) -> None:
        super().__init__(setup)
        self._args = args
        self._request = request
        self.max_updates = 2 if args.separate_updates else 1

    def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
        """A group of programs and a group of tests for each problem."""
        del step, state
        sampling = self.setup.sampling
        tests = replace(sampling, group_size=self._args.num_tests)
        return self._both(problems_P, sampling, tests)

    def exam(self, problems_P: Sequence[Prompt], sampling: SamplingConfig) -> Sequence[Ask]:
        """As many programs as tests."""
        return self._both(problems_P, sampling, sampling)

    def _both(
        self, problems_P: Sequence[Prompt], programs: SamplingConfig, tests: SamplingConfig
    ) -> list[Ask]:
        asks: list[Ask] = []
        for problem in problems_P:
            prompt = replace(self._request(problem), id=f"{problem.id}#test")
            asks.append(Ask.code(problem, programs))
            asks.append(Ask(prompt=prompt, problem=problem, sampling=tests, task=Task.TEST))
        return asks

    def grade(self, bundle: Sequence[JudgedGroup]) -> Sequence[JudgedGroup]:
        """Rewards of the tests, from the programs beside them; of both, where length counts."""
        known = known_programs(of_task(bundle, Task.CODE))
        graded = [
            replace(group, rewards_G=self._test_rewards(group, known))
            if group.task is Task.TEST
            else group
            for group in bundle
        ]
        return (
            [self._regularised(one) for one in graded] if self._args.regularise_length else graded
        )

    def _regularised(self, group: JudgedGroup) -> JudgedGroup:
        lengths = [len(completion.token_ids) for completion in group.group.completions_G]
        bounds = self._args.min_length_tokens, self._args.max_length_tokens
        rewards_G = length_regularised(group.rewards_G, np.array(lengths, np.int32), bounds)
        return replace(group, rewards_G=rewards_G)

    def _test_rewards(self, group: JudgedGroup, known: Known) -> FloatArray:
        args = self._args
        readable_M = np.array([extraction.valid for extraction in group.extractions_G])
        lowest = args.unreadable == "lowest"
        return rewards_of_tests(
            matrix_of(group)[known.rows_N],
            known.is_right_N,
            readable_M,
            args.reward,
            unreadable_lowest=lowest,
        )

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """Both tasks in one update, or in one each; advantages are always scaled apart."""
        del step, state
        advantages_PG = batch_advantages(groups_P, self.setup.advantage)
        parts: list[tuple[Task, ...]] = [(Task.CODE, Task.TEST)]
        if self._args.separate_updates:
            parts = [(Task.CODE,), (Task.TEST,)]
        updates = [
            self.policy_gradient(
                [group for group in groups_P if group.task in tasks],
                [a for g, a in zip(groups_P, advantages_PG, strict=True) if g.task in tasks],
            )
            for tasks in parts
        ]
        metrics = {f"task/test/{name}": value for name, value in figures_of_tests(groups_P).items()}
        return Lesson(updates=updates, advantages_PG=advantages_PG, metrics=metrics)

    def mark(self, groups_P: Sequence[JudgedGroup]) -> Mapping[str, float]:
        """What the tests are worth where the problems' own tests say which programs are right."""
        return marks_of_tests(groups_P)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """The programs of a problem that are known to be right or wrong; those without code are not."""

    rows_N: IntArray  # of the matrix
    is_right_N: BoolArray


def known_programs(programs: Sequence[JudgedGroup]) -> Known:
    """What is known of a problem's programs: right are those that pass its tests, where they ran.

    Else the better half of what the reward model scored; nothing without two different scores. A
    program that could not be judged is neither.
    """
    scores_N = [score for group in programs for score in group.scores_G]
    valid_N = [extraction.valid for group in programs for extraction in group.extractions_G]
    if any(score.verdict is not None for score in scores_N):
        known_N = [score.passed or score.failed for score in scores_N]
        right_N = [score.passed for score in scores_N]
    else:
        values = [score.value for score in scores_N if score.value is not None]
        middle = float(np.median(values)) if values else 0.0
        known_N = [score.value is not None for score in scores_N]
        right_N = [score.value is not None and score.value > middle for score in scores_N]
    rows_N = np.flatnonzero(np.array(known_N, np.bool_) & np.array(valid_N, np.bool_))
    return Known(rows_N.astype(np.int32), np.array(right_N, np.bool_)[rows_N])


def rewards_of_tests(
    passed_NM: BoolArray,
    is_right_N: BoolArray,
    readable_M: BoolArray,
    kind: TestReward,
    *,
    unreadable_lowest: bool,
) -> FloatArray:
    """Rewards of tests [M] in [-1, 1]: the sign by right programs, the size by wrong ones.

    A test is right when every right program passes it. With W the wrong programs:

    - mean: right, the share of W that fails it; wrong, minus the share of W that passes it
    - strict (CURE's post stage): right, 1 when all of W fail it, else 0; wrong, -1 when one of W
      passes it, else 0
    - sign: 1 or -1

    Without a wrong program the size is 1; without a right one nothing can be said, and all are 0.
    A test that cannot be read is the worst that there is, or 0, which is CURE's own rule: as much
    as a right test that tells no program from another.

    >>> passed = np.array([[1, 1, 0], [0, 1, 1]], np.bool_)  # a right program, then a wrong one
    >>> readable = np.ones(3, np.bool_)
    >>> right = np.array([True, False])
    >>> rewards_of_tests(passed, right, readable, "mean", unreadable_lowest=True).tolist()
    [1.0, 0.0, -1.0]
    """
    if not is_right_N.any():
        return np.zeros(len(readable_M), np.float32)
    is_right_M, wrong_NM = passed_NM[is_right_N].all(axis=0), passed_NM[~is_right_N]
    size_M = np.ones(len(readable_M), np.float32)
    if wrong_NM.size and kind == "mean":
        share_M = wrong_NM.mean(axis=0, dtype=np.float32)
        size_M = np.where(is_right_M, 1 - share_M, share_M)
    elif wrong_NM.size and kind == "strict":
        any_M = wrong_NM.any(axis=0)
        size_M = np.where(is_right_M, ~any_M, any_M).astype(np.float32)
    size_M[~readable_M] = 1.0 if unreadable_lowest else 0.0
    sign_M = np.where(is_right_M & readable_M, 1, -1).astype(np.float32)
    return sign_M * size_M


def length_regularised(
    rewards_G: FloatArray, lengths_G: IntArray, bounds: tuple[int, int]
) -> FloatArray:
    """Rewards that prefer short good answers (CURE, its variant for long reasoning).

    Good are answers above the mean of their group, or all where all have the reward 1; of the
    others only that they are not. A good one gets the median length of the good ones, within
    `bounds`, less its own; a bad one the lowest of these, 0 at most. Those above 0 are then scaled
    so that both sides weigh the same, and all to a standard deviation of 1. Nothing is learned (all
    0) where a side is empty, as where every good answer is shorter than the lower bound.
    """
    rewards = rewards_G.astype(np.float64)
    sides_G = np.sign((rewards - rewards.mean()).round(_SIDE_DECIMALS))
    if (rewards == 1).all():
        sides_G = np.ones_like(rewards)
    good_G, shaped_G = sides_G > 0, sides_G.copy()
    lengths = lengths_G[good_G].astype(np.float64)
    if good_G.any() and np.ptp(lengths) > 0:
        shaped_G[good_G] = np.clip(np.median(lengths), *bounds) - lengths
        shaped_G[sides_G < 0] = min(0.0, shaped_G[good_G].min())
    above, below = shaped_G > 0, shaped_G < 0
    if not (above.any() and below.any()):
        return np.zeros_like(rewards_G)
    shaped_G[above] *= -shaped_G[below].sum() / shaped_G[above].sum()
    return (shaped_G / shaped_G.std()).astype(np.float32)


def chosen_by_tests(groups_P: Sequence[JudgedGroup]) -> float:
    """Accuracy of the program that passes most of the problem's sampled tests; ties share it."""
    shares: list[float] = []
    for programs, tests in by_problem(groups_P):
        votes_N = np.sum([matrix_of(group).sum(axis=1) for group in tests], axis=0)
        passed_N = np.array([s.passed for group in programs for s in group.scores_G])
        shares.append(float(passed_N[votes_N == votes_N.max()].mean()))
    return float(np.mean(shares)) if shares else 0.0


def marks_of_tests(groups_P: Sequence[JudgedGroup]) -> Mapping[str, float]:
    """Figures of an evaluation that asked for programs and for tests."""
    return {f"eval/test_{name}": value for name, value in figures_of_tests(groups_P).items()} | {
        "eval/best_of_by_tests": chosen_by_tests(groups_P)
    }


def figures_of_tests(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """What the tests of a batch are worth.

    `right` are, of all tests of the problems with a right program, those that every right program
    passes. Of problems with a wrong one as well, `right_beside_wrong` are the same, and `telling`
    those of them that a wrong program fails.
    """
    readable: list[bool] = []
    right: list[bool] = []
    beside: list[bool] = []
    telling: list[bool] = []
    for programs, tests in by_problem(groups_P):
        known = known_programs(programs)
        for group in tests:
            readable += [extraction.valid for extraction in group.extractions_G]
            if known.is_right_N.any():
                is_right_M, is_telling_M = _kinds(matrix_of(group)[known.rows_N], known.is_right_N)
                right += is_right_M.tolist()
                if not known.is_right_N.all():
                    beside += is_right_M.tolist()
                    telling += is_telling_M.tolist()
    named = {"readable": readable, "right": right, "right_beside_wrong": beside, "telling": telling}
    return {name: float(np.mean(found)) for name, found in named.items() if found}


def _kinds(passed_NM: BoolArray, is_right_N: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Tests that every right program passes, and of them those that a wrong program fails [M]."""
    is_right_M = np.logical_and.reduce(passed_NM[is_right_N], axis=0)
    fails_M = np.logical_not(np.logical_and.reduce(passed_NM[~is_right_N], axis=0))
    return is_right_M, is_right_M & fails_M


def by_problem(
    groups_P: Sequence[JudgedGroup],
) -> list[tuple[list[JudgedGroup], list[JudgedGroup]]]:
    """Groups of programs and groups of tests of each problem that has both."""
    problems: dict[str, list[JudgedGroup]] = {}
    for group in groups_P:
        problems.setdefault(group.group.ask.problem.id, []).append(group)
    split = [(of_task(own, Task.CODE), of_task(own, Task.TEST)) for own in problems.values()]
    return [(programs, tests) for programs, tests in split if programs and tests]


def matrix_of(group: JudgedGroup) -> BoolArray:
    """Programs x tests of a group of tests."""
    passed_NM = group.evidence.passed_NM
    if group.judge is not JudgeKind.MATRIX or passed_NM is None:
        raise ValueError(f"{group.group.prompt.id}: the tests were not run on programs")
    return passed_NM
