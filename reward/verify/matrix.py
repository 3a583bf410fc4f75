"""Execution matrix, programs times tests: which passes which test, and which outputs are equal.

Axes: N programs of one problem, M generated tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from conf.errors import SandboxError
from reward.sandbox.inside.preamble import PREAMBLE
from reward.sandbox.pool import CallJob, Job, Outcome, StdioJob
from reward.sandbox.report import Ending, Observation
from reward.verify.comparison import same_output, same_value
from reward.verify.generated_tests import CallTest, GeneratedTest, form_of, read_test
from reward.verify.verdict import imports_of
from rl.problems.oracles import has_oracle, is_input, right_output
from rl.problems.prompts import (
    AssertTests,
    FunctionalTests,
    StdioCase,
    parse_tests,
    time_limit_of,
    watched_input,
)
from rl.types import Prompt

_ATTEMPTS = 3
_PAUSE_S = 1.0
_CALLER = "_call_of_generated_test"


class Observing(Protocol):
    """What is needed of `reward.verify.verdict.Verifier`."""

    def observe(self, jobs_N: Sequence[Job]) -> list[Outcome]:
        """What each job was seen to do."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExecutionMatrix:
    """What the programs of one problem did with its generated tests.

    The row of an empty program is all False and -1.
    """

    passed_NM: NDArray[np.bool_]
    outputs_NM: NDArray[np.int32]  # equal in a column: equal outputs; -1: it did not finish
    num_programs: int  # that were run: equal ones once


def execute_matrix(
    verifier: Observing, prompt: Prompt, codes_N: Sequence[str], tests_M: Sequence[GeneratedTest]
) -> ExecutionMatrix:
    """Run every distinct program on the input of every test, and compare outside the sandbox.

    A program runs once for all its tests where they are calls, and once for each where they are
    standard input. Raises SandboxError when a program cannot be run at all, after three attempts.
    """
    seen = observe_tests(verifier, prompt, codes_N, tests_M)
    passed_NM = np.zeros((len(codes_N), len(tests_M)), dtype=np.bool_)
    outputs_NM = np.full((len(codes_N), len(tests_M)), -1, dtype=np.int32)
    checks_M = [_check(prompt, test) for test in tests_M]
    identities_M = [_Identities() for _ in tests_M]
    for row, code in enumerate(codes_N):
        for column, observation in enumerate(seen.get(code, ())):
            if observation.kind is Ending.FINISHED:
                passed_NM[row, column] = checks_M[column](observation.value)
                outputs_NM[row, column] = identities_M[column].of(observation.value)
    return ExecutionMatrix(passed_NM=passed_NM, outputs_NM=outputs_NM, num_programs=len(seen))


def observe_tests(
    verifier: Observing, prompt: Prompt, codes_N: Sequence[str], tests_M: Sequence[GeneratedTest]
) -> dict[str, tuple[Observation, ...]]:
    """What each distinct program was seen to do with the input of each test.

    Raises SandboxError as `execute_matrix` does.
    """
    programs = list(dict.fromkeys(code for code in codes_N if code)) if tests_M else []
    outcomes = observe_persistently(verifier, [job_of(prompt, code, tests_M) for code in programs])
    observed = (tuple(outcome.observations_N) for outcome in outcomes)
    return dict(zip(programs, observed, strict=True))


def observe_persistently(verifier: Observing, jobs: Sequence[Job]) -> list[Outcome]:
    """What each job was seen to do; raises SandboxError where one cannot be run at all."""
    outcomes: dict[int, Outcome] = {}
    for attempt in range(_ATTEMPTS):
        missing = [index for index in range(len(jobs)) if index not in outcomes]
        if not missing:
            break
        time.sleep(_PAUSE_S * attempt)
        found = verifier.observe([jobs[index] for index in missing])
        for index, outcome in zip(missing, found, strict=True):
            if not any(_undecided(seen) for seen in outcome.observations_N):
                outcomes[index] = outcome
    if len(outcomes) < len(jobs):
        raise SandboxError(
            f"sandbox: {len(jobs) - len(outcomes)} of {len(jobs)} programs could not be run on "
            "generated tests"
        )
    return [outcomes[index] for index in range(len(jobs))]


def _undecided(seen: Observation) -> bool:
    return seen.kind is Ending.SANDBOX_ERROR


def inputs_of(prompt: Prompt, most: int | None = None) -> list[GeneratedTest]:
    """The first tests of a problem as inputs; what they expect plays no part."""
    if prompt.tests is None:
        return []
    tests = parse_tests(prompt.tests, prompt.entry_point)
    if isinstance(tests, AssertTests):
        read = [read_test(one, prompt) for one in tests.asserts[:most]]
        return [test for test in read if test is not None]
    if isinstance(tests, FunctionalTests):
        return [CallTest(tests.entry_point, case.args, None) for case in tests.cases[:most]]
    return [replace(case, output="") for case in tests.cases[:most]]


def watched_of(prompt: Prompt) -> list[GeneratedTest]:
    """The input that a problem's metadata names to watch programs on; at most one."""
    case = watched_input(prompt)
    if case is None:
        return []
    if isinstance(case, StdioCase):
        return [case]
    return [CallTest(cast("str", prompt.entry_point), case.args, None)]


def job_of(prompt: Prompt, code: str, tests_M: Sequence[GeneratedTest]) -> Job:
    """A program on the inputs only: what is expected never enters its process."""
    tests = None if prompt.tests is None else parse_tests(prompt.tests, prompt.entry_point)
    setup = "" if tests is None else tests.setup
    limit_s = (None if tests is None else tests.time_limit) or time_limit_of(prompt)
    if form_of(prompt) == "stdio":
        stdins = tuple(cast("StdioCase", test).input for test in tests_M)
        return StdioJob(code=code, stdins_N=stdins, imports=setup, time_limit_s=limit_s)
    calls = [cast("CallTest", test) for test in tests_M]
    if form_of(prompt) == "call":
        return CallJob(
            code=code,
            entry_point=calls[0].name,
            args_N=tuple(call.args for call in calls),
            imports=f"{PREAMBLE}{setup}",
            time_limit_s=limit_s,
        )
    # Arguments that JSON does not know (tuples, sets) are written into the program as literals.
    listed = ", ".join(f"lambda: {call.name}(*{call.args!r})" for call in calls)
    return CallJob(
        code=f"{code}\n\n\ndef {_CALLER}(index):\n    return ({listed},)[index]()\n",
        entry_point=_CALLER,
        args_N=tuple((index,) for index in range(len(calls))),
        imports=imports_of(setup) if isinstance(tests, AssertTests) else "",
        time_limit_s=limit_s,
    )


def _check(prompt: Prompt, test: GeneratedTest) -> Callable[[Any], bool]:
    if isinstance(test, StdioCase):
        return lambda value: same_output(value, test.output)
    if form_of(prompt) == "call":
        return lambda value: same_value(value, _as_json(test.output))
    return lambda value: bool(value == test.output)


def _as_json(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """With lists in place of tuples."""
    match value:
        case list() | tuple():
            return [_as_json(item) for item in cast("Sequence[Any]", value)]
        case dict():
            return {key: _as_json(item) for key, item in cast("dict[str, Any]", value).items()}
        case _:
            return value


def is_right_test(problem: Prompt, test: GeneratedTest) -> bool | None:
    """Whether a test of a problem with an exact oracle is right, without running anything.

    None where nothing but programs can say: the problem has no oracle, or the test's input is not
    such as it speaks of. The measure of recipes is that right programs pass a test.
    """
    if not isinstance(test, CallTest) or not (has_oracle(problem) and is_input(test.args)):
        return None
    output = right_output(problem, test.args)
    return output is not None and _check(problem, test)(output)


class _Identities:
    """Numbers for outputs: the same number for the same output."""

    def __init__(self) -> None:
        self._known: list[object] = []

    def of(self, value: object) -> int:
        """The number of `value`; white space at line ends and around text does not count."""
        if isinstance(value, str):
            value = "\n".join(line.rstrip() for line in value.strip().split("\n"))
        for number, known in enumerate(self._known):
            if type(known) is type(value) and known == value:
                return number
        self._known.append(value)
        return len(self._known) - 1
