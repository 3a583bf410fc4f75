"""Judging of a bundle: the answers about one problem, of all tasks, together.

Programs go to the judge of the run. Tests and traces are judged by what programs were seen to do in
the sandbox, verdicts by what is known of the programs; what a test is worth, a recipe says
(`rl.recipes`). Nothing here raises a reward that a
text could claim for itself: what an answer expects never enters the process of a program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from reward.judges.judge import Answers, Judge, Judged
from reward.verify.executed import executed_programs
from reward.verify.generated_tests import read_test, text_of
from reward.verify.lineups import read_verdict
from reward.verify.matrix import execute_matrix
from reward.verify.suites import as_text, mutants_of, read_suite, run_suites
from reward.verify.traces import read_stated, run_traces, share_right
from reward.verify.verdict import Verifier
from rl.types import Evidence, Extraction, JudgeKind, Reason, Score, Task


class BundleJudge:
    """Judges the groups of one problem; `verifier` is made when the first test or trace comes."""

    def __init__(self, programs: Judge, verifier: Callable[[], Verifier]) -> None:
        self._programs = programs
        self._make_verifier = verifier

    @cached_property
    def _verifier(self) -> Verifier:
        return self._make_verifier()

    def judge(self, bundle: Sequence[Answers], earlier_codes: Sequence[str] = ()) -> list[Judged]:
        """Judge the groups of one problem, in their order.

        `earlier_codes` are programs of groups that were judged before, "" where one has none.
        Raises SandboxError when a program cannot be run at all.
        """
        programs = {
            index: self._judge_programs(answers)
            for index, answers in enumerate(bundle)
            if answers.task in (Task.CODE, Task.STEP)
        }
        codes_N = [*earlier_codes, *(e.code for j in programs.values() for e in j.extractions_G)]
        return [
            programs[index] if index in programs else self._judge_other(answers, codes_N)
            for index, answers in enumerate(bundle)
        ]

    def _judge_programs(self, answers: Answers) -> Judged:
        judged = self._programs.judge(answers.problem, answers.texts_G)
        codes_G = [extraction.code for extraction in judged.extractions_G]
        evidence = judged.evidence
        if answers.traced:
            traces = run_traces(
                self._verifier, answers.problem, codes_G, variables=answers.variables
            )
            evidence = replace(evidence, traces_G=tuple(traces))
        if answers.covered:
            executed = executed_programs(self._verifier, answers.problem, codes_G)
            evidence = replace(evidence, executed_G=tuple(executed))
        return replace(judged, evidence=evidence)

    def _judge_other(self, answers: Answers, codes_N: Sequence[str]) -> Judged:
        if answers.task is Task.TRACE:
            return judge_traces(answers)
        if answers.task is Task.SUITE:
            return self._judge_suites(answers)
        if answers.task is Task.VERDICT:
            return judge_verdicts(answers)
        return self._judge_tests(answers, codes_N)

    def _judge_tests(self, answers: Answers, codes_N: Sequence[str]) -> Judged:
        """Run every program on every test that can be read; the tests get no reward here."""
        tests_G = [read_test(text, answers.problem) for text in answers.texts_G]
        readable = [index for index, test in enumerate(tests_G) if test is not None]
        tests_M = [test for test in tests_G if test is not None]
        matrix = execute_matrix(self._verifier, answers.problem, codes_N, tests_M)
        passed_NM = np.zeros((len(codes_N), len(tests_G)), dtype=np.bool_)
        passed_NM[:, readable] = matrix.passed_NM
        return Judged(
            extractions_G=tuple(
                _NO_TEST if test is None else Extraction(reason=Reason.OK, code=text_of(test))
                for test in tests_G
            ),
            scores_G=(Score(value=None),) * len(tests_G),
            rewards_G=np.zeros(len(tests_G), dtype=np.float32),
            judge=JudgeKind.MATRIX,
            num_executed=matrix.num_programs,
            evidence=Evidence(passed_NM=passed_NM),
        )

    def _judge_suites(self, answers: Answers) -> Judged:
        """Run the given program and its mutants on the tests; the suites get no reward here."""
        given, problem = answers.given, answers.problem
        if given is None:
            raise ValueError(f"problem {problem.id}: tests of a program are asked for, of none")
        suites_G = [read_suite(text, problem, given.num_tests) for text in answers.texts_G]
        found_G = run_suites(self._verifier, problem, given.code, suites_G)
        return Judged(
            extractions_G=tuple(
                Extraction(reason=Reason.OK, code=as_text(suite.tests)) if suite.tests else _NO_TEST
                for suite in suites_G
            ),
            scores_G=tuple(Score(value=float(found.agrees)) for found in found_G),
            rewards_G=np.zeros(len(suites_G), dtype=np.float32),
            judge=JudgeKind.SUITE,
            num_executed=1 + len(mutants_of(given.code)),
            evidence=Evidence(suites_G=tuple(found_G)),
        )


_NO_TEST = Extraction(reason=Reason.NO_BLOCK, detail="no test of this problem can be read")


_NO_TRACE = Extraction(reason=Reason.NO_BLOCK, detail="no output can be read")
_NO_VERDICT = Extraction(reason=Reason.NO_BLOCK, detail="no choice among the programs can be read")


def judge_traces(answers: Answers) -> Judged:
    """Compare each answer with what the program was seen to do: the share of it that is right."""
    trace = answers.trace
    if trace is None:
        raise ValueError(f"problem {answers.problem.id}: a trace is asked for, and none is given")
    stated_G = [read_stated(text, trace) for text in answers.texts_G]
    return _compared(
        [stated and stated.text for stated in stated_G],
        [None if stated is None else share_right(stated, trace) for stated in stated_G],
        JudgeKind.TRACE,
        _NO_TRACE,
    )


def judge_verdicts(answers: Answers) -> Judged:
    """Compare each choice with what is known: 1 for the only right program, else 0.

    Where the programs have no only right one, a choice has no score.
    """
    lineup = answers.lineup
    if lineup is None:
        raise ValueError(f"problem {answers.problem.id}: a verdict is asked for, of no programs")
    found_G = [read_verdict(text, lineup) for text in answers.texts_G]
    right = lineup.right
    values_G = [
        None if found is None or right is None else float(found == right) for found in found_G
    ]
    return _compared(found_G, values_G, JudgeKind.VERDICT, _NO_VERDICT)


def _compared(
    found_G: Sequence[str | None],
    values_G: Sequence[float | None],
    judge: JudgeKind,
    unread: Extraction,
) -> Judged:
    """What was found in each answer, with its score; none where nothing was, or is known."""
    scores_G = tuple(Score(value=value) for value in values_G)
    return Judged(
        extractions_G=tuple(
            unread if found is None else Extraction(reason=Reason.OK, code=found)
            for found in found_G
        ),
        scores_G=scores_G,
        rewards_G=np.array([score.value or 0.0 for score in scores_G], dtype=np.float32),
        judge=judge,
        num_executed=0,
    )
