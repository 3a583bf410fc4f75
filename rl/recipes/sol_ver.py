"""Sol-Ver: one policy solves and verifies, and learns from what both agree on (arXiv 2502.14948).

A step is a round of self-play. For every problem there are programs and tests, each program runs on
each test, and nothing else says what is right: of each problem one pair of a program and a test
that it passes is accepted, and one of each is rejected. The accepted ones are imitated, then
preferred to the rejected ones by DPO, against the policy as it was after the imitation: the
reference is a new one in every round. One model may agree with itself on what is wrong, which is
*collusion*; where the judge of the run executes the problems' own tests, their verdicts measure it
and teach nothing. So does an oracle of tests where none of the programs is right.

Axes: N programs and M tests of one problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conf.recipes import SolVerArgs
from rl.lessons.spread import without_unjudged
from rl.loss import DpoObjective, NllObjective
from rl.recipes.cure import by_problem, figures_of_tests, marks_of_tests, matrix_of
from rl.recipes.recipe import Labels, Lesson, Recipe, Setup, State, Update, of_task
from rl.samples import over_all_tokens, sample_of
from rl.types import (
    Ask,
    BoolArray,
    FloatArray,
    IntArray,
    JudgedGroup,
    Prompt,
    Sample,
    SamplingConfig,
    Task,
)

_HELD_OUT = 1  # programs of a held-out problem that tests are asked for

Place = tuple[JudgedGroup, int]  # one completion
RequestTest = Callable[[Prompt, str], Prompt]  # of a problem, shown a program unless it is ""
Oracle = Callable[[Prompt, str], bool | None]  # whether a test of a problem is right; None: unknown


@dataclass(frozen=True, slots=True)
class Choice:
    """What is accepted of one problem, and what is rejected; None where there is nothing."""

    program: int
    worse: int | None
    test: int | None = None
    worse_test: int | None = None


class SolVer(Recipe):
    """Programs and tests of every problem; `request` makes the prompt that asks for a test.

    `oracle` measures tests where no program is right, and nothing is learned from it.
    """

    max_updates = 2
    labels: Labels | None = "none"

    def __init__(
        self, setup: Setup, args: SolVerArgs, request: RequestTest, oracle: Oracle
    ) -> None:
        super().__init__(setup)
        self._args = args
        self._request = request
        self._oracle = oracle
        if args.filter == "gold":
            self.labels = "gold_tests"

    def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
        """Programs for each problem; tests too, where these do not see the programs."""
        del step, state
        tests = replace(self.setup.sampling, group_size=self._args.num_tests)
        return self._asks(problems_P, self.setup.sampling, tests)

    def follow_up(self, step: int, bundle: Sequence[JudgedGroup]) -> Sequence[Ask]:
        """Tests for the first different programs of a problem."""
        del step
        tests = replace(self.setup.sampling, group_size=self._args.num_tests)
        return self._of_programs(bundle, tests, self._args.num_programs)

    def exam(self, problems_P: Sequence[Prompt], sampling: SamplingConfig) -> Sequence[Ask]:
        """As many programs as tests."""
        return self._asks(problems_P, sampling, sampling)

    def examine(self, bundle: Sequence[JudgedGroup], sampling: SamplingConfig) -> Sequence[Ask]:
        """Tests for one program of a held-out problem."""
        return self._of_programs(bundle, sampling, _HELD_OUT)

    def _asks(
        self, problems_P: Sequence[Prompt], programs: SamplingConfig, tests: SamplingConfig
    ) -> list[Ask]:
        asks: list[Ask] = []
        for problem in problems_P:
            asks.append(Ask.code(problem, programs))
            if self._args.tests_see == "problem":
                asks.append(self._test(problem, "", 0, tests))
        return asks

    def _of_programs(
        self, bundle: Sequence[JudgedGroup], sampling: SamplingConfig, num: int
    ) -> list[Ask]:
        programs = of_task(bundle, Task.CODE)
        if self._args.tests_see == "problem" or not programs:
            return []
        codes = [e.code for group in programs for e in group.extractions_G if e.valid]
        problem = programs[0].group.ask.problem
        asks = [
            self._test(problem, code, index, sampling)
            for index, code in enumerate(dict.fromkeys(codes))
        ]
        return [ask for ask in asks if self.setup.fits(ask.prompt)][:num]

    def _test(self, problem: Prompt, code: str, index: int, sampling: SamplingConfig) -> Ask:
        prompt = replace(self._request(problem, code), id=f"{problem.id}#test-{index}")
        return Ask(prompt=prompt, problem=problem, sampling=sampling, task=Task.TEST)

    def grade(self, bundle: Sequence[JudgedGroup]) -> Sequence[JudgedGroup]:
        """As judged; where gold tests filter, programs of which they say nothing are left out."""
        return bundle if self._args.filter != "gold" else [without_unjudged(g) for g in bundle]

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """Imitation of what is accepted, then DPO on what is rejected beside it."""
        del step, state
        accepted: list[Place] = []
        pairs: list[tuple[Place, Place]] = []
        seen: list[Mapping[str, float]] = []
        problems = by_problem(groups_P)
        for programs, tests in problems:
            programs_N, tests_M = _places(programs), _places(tests)
            passed_NM = _passed(programs, tests)
            choice = self._choice(programs_N, tests_M, passed_NM)
            if choice is None:
                continue
            accepted.append(programs_N[choice.program])
            if choice.worse is not None:
                pairs.append((programs_N[choice.program], programs_N[choice.worse]))
            if choice.test is not None:
                accepted.append(tests_M[choice.test])
                if choice.worse_test is not None:
                    pairs.append((tests_M[choice.test], tests_M[choice.worse_test]))
            seen.append(_seen(programs_N, tests_M, passed_NM, choice, self._oracle))
        metrics = {"task/pair/accepted": len(seen) / len(problems)} if problems else {}
        metrics |= _means(seen)
        if _has_verdicts(groups_P):
            metrics |= {f"task/test/{k}": v for k, v in figures_of_tests(groups_P).items()}
        return Lesson(
            updates=self._updates(accepted, pairs),
            advantages_PG=_signs(groups_P, accepted, [worse for _, worse in pairs]),
            metrics=metrics,
        )

    def _choice(
        self, programs_N: Sequence[Place], tests_M: Sequence[Place], passed_NM: BoolArray
    ) -> Choice | None:
        valid_N, readable_M = _valid(programs_N), _valid(tests_M)
        if self._args.filter == "none":
            return first_of(valid_N, readable_M)
        right_N = _right(programs_N) if self._args.filter == "gold" else None
        accept = self._args.accept
        return choose(passed_NM, valid_N, readable_M, _prompts(tests_M), accept, right_N=right_N)

    def _updates(
        self, accepted: Sequence[Place], pairs: Sequence[tuple[Place, Place]]
    ) -> list[Update]:
        minibatches = self.setup.minibatches_per_step
        imitated = Update(
            samples=_samples(accepted),
            objective=NllObjective(),
            minibatches=minibatches,
            needs_old=False,
        )
        preferred = Update(
            samples=_samples([place for pair in pairs for place in pair]),
            objective=DpoObjective(beta=self._args.beta, reference="start"),
            minibatches=minibatches,
            group_of=2,
            begins_anew=True,
        )
        learned = {"sft": [imitated], "dpo": [preferred], "both": [imitated, preferred]}
        return learned[self._args.learn]

    def mark(self, groups_P: Sequence[JudgedGroup]) -> Mapping[str, float]:
        """What the tests are worth where the problems' own tests say which programs are right."""
        return marks_of_tests(groups_P)


def first_of(valid_N: BoolArray, readable_M: BoolArray) -> Choice | None:
    """The first program that can be run and the first test that can be read, unfiltered.

    >>> first_of(np.array([False, True]), np.array([True, True]))
    Choice(program=1, worse=None, test=0, worse_test=None)
    """
    if not valid_N.any():
        return None
    test = int(readable_M.argmax()) if readable_M.any() else None
    return Choice(int(valid_N.argmax()), worse=None, test=test)


def choose(  # noqa: PLR0913 - what is known of a problem, and what is asked of it
    passed_NM: BoolArray,
    valid_N: BoolArray,
    readable_M: BoolArray,
    group_M: IntArray,
    accept: float,
    *,
    right_N: BoolArray | None = None,
) -> Choice | None:
    """What is accepted and rejected of a problem, by the runs of its programs on its tests alone.

    The accepted program passes the largest share of the readable tests, at least `accept`; the
    rejected one the smallest, if that is less, and one that cannot be run passes none. Of the tests
    that the accepted program passes, the accepted one is passed by most programs but not by all,
    for what all pass tells nothing; the rejected test is one of the same group, that is of the same
    prompt, that it fails, the one that fewest programs pass. A test whose group has none to reject
    is accepted only where no other is. First ones win.

    With `right_N`, which the problem's own tests call right, a right program is accepted and
    another rejected, and tests are told apart by whether every right program passes them.

    >>> passed = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1]], np.bool_)
    >>> all_3, one_group = np.ones(3, np.bool_), np.zeros(3, np.int32)
    >>> choose(passed, all_3, all_3, one_group, accept=0.5)
    Choice(program=0, worse=1, test=1, worse_test=2)
    """
    if not readable_M.any() or not valid_N.any():
        return None
    worth_N = passed_NM[:, readable_M].mean(axis=1) if right_N is None else right_N
    share_N = np.where(valid_N, worth_N, 0.0)
    best, worst = int(share_N.argmax()), int(share_N.argmin())
    if share_N[best] < accept:
        return None
    worse = worst if share_N[worst] < share_N[best] else None
    share_M = passed_NM[valid_N].mean(axis=0)
    agreeing_N = right_N if right_N is not None else np.arange(len(valid_N)) == best
    agreed_M = passed_NM[agreeing_N].all(axis=0) & readable_M
    telling = np.flatnonzero(agreed_M & (share_M < 1))
    ranked: list[int] = telling[np.argsort(-share_M[telling], kind="stable")].tolist()
    for test in ranked:
        beside = np.flatnonzero(~agreed_M & (group_M == group_M[test]))
        if beside.size:
            return Choice(best, worse, test, int(beside[share_M[beside].argmin()]))
    return Choice(best, worse, ranked[0] if ranked else None)


def _places(groups: Sequence[JudgedGroup]) -> list[Place]:
    """The completions that can be learned; no other is accepted, rejected or counted."""
    return [(group, int(i)) for group in groups for i in np.flatnonzero(group.trainable_G)]


def _passed(programs: Sequence[JudgedGroup], tests: Sequence[JudgedGroup]) -> BoolArray:
    """Which of the programs pass which of the tests [NM], of those that can be learned."""
    every_NM = np.concatenate([matrix_of(group) for group in tests], axis=1)
    kept_N, kept_M = (
        np.concatenate([group.trainable_G for group in groups]) for groups in (programs, tests)
    )
    return every_NM[np.ix_(kept_N, kept_M)]


def _prompts(places: Sequence[Place]) -> IntArray:
    """A number for the prompt of each."""
    ids = [group.group.prompt.id for group, _ in places]
    return np.unique(ids, return_inverse=True)[1].astype(np.int32)


def _valid(places: Sequence[Place]) -> BoolArray:
    return np.array([group.extractions_G[index].valid for group, index in places], np.bool_)


def _right(places: Sequence[Place]) -> BoolArray:
    return np.array([group.scores_G[index].passed for group, index in places], np.bool_)


def _samples(places: Sequence[Place]) -> list[Sample]:
    return over_all_tokens([sample_of(group.group, index, 0.0) for group, index in places])


def _has_verdicts(groups_P: Sequence[JudgedGroup]) -> bool:
    return any(s.verdict is not None for g in of_task(groups_P, Task.CODE) for s in g.scores_G)


def _seen(
    programs_N: Sequence[Place],
    tests_M: Sequence[Place],
    passed_NM: BoolArray,
    choice: Choice,
    oracle: Oracle,
) -> Mapping[str, float]:
    """What the problem's own tests say of what is accepted; nothing where nobody ran them.

    A test is right when every right program passes it. Without one the oracle says it, and where
    there is none nothing is known of the test.
    """
    scores_N = [group.scores_G[index] for group, index in programs_N]
    if all(score.verdict is None for score in scores_N):
        return {}
    is_right_N = _right(programs_N)
    seen = {"task/pair/program_right": float(is_right_N[choice.program])}
    if choice.test is not None:
        test_right: bool | None = bool(passed_NM[is_right_N, choice.test].all())
        if not is_right_N.any():
            group, index = tests_M[choice.test]
            test_right = oracle(group.group.ask.problem, group.extractions_G[index].code)
        seen["task/pair/unknown"] = float(test_right is None)
        if test_right is not None:
            seen["task/pair/test_right"] = float(test_right)
            seen["task/pair/collusion"] = float(not (test_right or is_right_N[choice.program]))
    return seen


def _means(seen: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in seen for name in one)
    return {name: float(np.mean([one[name] for one in seen if name in one])) for name in names}


def _signs(
    groups_P: Sequence[JudgedGroup], better: Sequence[Place], worse: Sequence[Place]
) -> list[FloatArray]:
    """For the record: 1 where something is accepted, -1 where it is rejected."""
    signs_PG = [np.zeros(len(group.scores_G), np.float32) for group in groups_P]
    home = {id(group): signs_G for group, signs_G in zip(groups_P, signs_PG, strict=True)}
    for sign, places in ((1, better), (-1, worse)):
        for group, index in places:
            home[id(group)][index] = sign
    return signs_PG
