"""Verdicts by execution: labels for preference pairs, evaluation, and the execution reward.

Programs run in `reward.sandbox.pool`; what they should have done never enters the process that they
run in. Values and standard output are compared here, as builtin data; asserts run in the sandbox
too, but in a process of their own. That is what makes a verdict impossible to forge: a program sees
its inputs, never what is expected of them, and never what becomes of its answers.

One file: the order of runs in which a verdict is reached.
"""

from __future__ import annotations

import ast
import json
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from threading import Lock
from typing import Any, Self

from conf.errors import SandboxError
from reward.sandbox.inside.cpu_time import STRETCH
from reward.sandbox.pool import (
    AssertJob,
    CallJob,
    Confinement,
    Job,
    Limits,
    Outcome,
    Sandbox,
    StdioJob,
)
from reward.sandbox.report import Ending, Observation
from reward.verify.comparison import DEFAULT, Protocol
from reward.verify.packages import missing_package
from rl.problems.prompts import (
    AssertTests,
    FunctionalCase,
    FunctionalTests,
    StdioTests,
    parse_tests,
)
from rl.types import Verdict

_FEW_CHARS = 1 << 16  # of tests, within which no expected value needs room of its own
_REMEMBERED = 50_000  # judgements kept for programs that come again
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_CANARY_EVERY = 200  # executed programs between two checks of the sandbox itself
_CANARY = CallJob(code="def f(x):\n    return x + 1", entry_point="f", args_N=((1,), (2,)))
_BAD_CANARY = CallJob(code="def f(x):\n    raise KeyError(x)", entry_point="f", args_N=((1,),))

PROGRAM_MODULE = "solution"  # what tests import a program as
_OF_TESTS = (PROGRAM_MODULE, "pytest")  # what only tests import

Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Program:
    """One program and the tests that it has to pass, as a canonical row states them.

    >>> Program("def f(x): return 2 * x", '[{"input": [2], "output": 4}]', "f").entry_point
    'f'
    """

    code: str
    tests: str  # JSON
    entry_point: str | None = None
    time_limit: float | None = None  # seconds of one test; what `tests` says comes first


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramResult:
    """The verdict on one program."""

    verdict: Verdict
    num_passed: int
    num_tests: int
    seconds: float = 0.0  # of the program's processes; 0 when nothing ran
    detail: str = ""  # for people: how the deciding test failed
    # Run for this very call: neither remembered, nor a copy within it, nor empty.
    executed: bool = field(default=False, compare=False)

    @property
    def passed(self) -> bool:
        """True when every test passed."""
        return self.verdict is Verdict.PASSED

    @property
    def is_label(self) -> bool:
        """True when the verdict says that the program is right, or that it is wrong."""
        return self.verdict.is_label


class Verifier:
    """Judges programs by their tests. Thread-safe; use it as a context manager.

    `timeout_s` is wall clock of one test. With `early_stop` the tests after the first failed one
    need not run, and `num_passed` counts those before it; without, it is the true count. The same
    code with the same tests is run once, now and later; only what ran counts in `num_executed` and
    is `executed`. `protocol` says when an answer is the one that is expected.

    Raises UserError where the machine does not reach the level that `config` asks for.
    """

    def __init__(  # noqa: PLR0913 - all but two by name
        self,
        workers: int = 1,
        timeout_s: float | None = None,
        *,
        early_stop: bool = False,
        limits: Limits | None = None,
        config: Confinement | None = None,
        protocol: Protocol = DEFAULT,
    ) -> None:
        limits = limits or Limits()
        if timeout_s is not None:
            limits = replace(limits, wall_s=timeout_s)
        self._sandbox = Sandbox(workers, limits, config)
        self.early_stop = early_stop
        self._protocol = protocol
        self._lock = Lock()
        self._known: OrderedDict[bytes, ProgramResult] = OrderedDict()
        self._num_executed = 0
        self._checked_at: int | None = None  # `num_executed` when the canaries last ran

    @property
    def num_executed(self) -> int:
        """Programs that were run so far."""
        return self._num_executed

    def verify(self, programs_N: Sequence[Program]) -> list[ProgramResult]:
        """Return a judgement for each program, in order.

        Raises DataError on malformed tests, and SandboxError when the sandbox misjudges a program
        that is known to be good or bad.
        """
        keys = [_key(program) for program in programs_N]
        found: dict[bytes, ProgramResult] = {}
        plans: dict[bytes, _Plan] = {}
        with self._lock:
            for key in set(keys) & self._known.keys():
                found[key] = self._known[key]
                self._known.move_to_end(key)
        for key, program in zip(keys, programs_N, strict=True):
            if key in found or key in plans:
                continue
            plan = _plan(program, self._protocol)
            if program.code.strip():
                plans[key] = plan
            else:
                found[key] = ProgramResult(
                    verdict=Verdict.NO_CODE, num_passed=0, num_tests=len(plan.checks)
                )
        fresh = self._execute(plans)
        found |= {key: replace(judgement, executed=False) for key, judgement in fresh.items()}
        return [fresh.pop(key, found[key]) for key in keys]

    def observe(self, jobs_N: Sequence[Job]) -> list[Outcome]:
        """What each job was seen to do: nothing is judged, remembered or stopped early."""
        self._check_sandbox()
        outcomes = self._sandbox.run(jobs_N)
        with self._lock:
            self._num_executed += len(jobs_N)
        return outcomes

    def _execute(self, plans: dict[bytes, _Plan]) -> dict[bytes, ProgramResult]:
        if not plans:
            return {}
        self._check_sandbox()
        outcomes: dict[bytes, Outcome] = {}
        waiting = plans
        while waiting:
            following: dict[bytes, _Plan] = {}
            for key, outcome in self._run(waiting).items():
                job = waiting[key].job
                outcomes[key] = _combined(outcomes.get(key), job, outcome)
                further = _next_job(job, outcome)
                if further is not None:
                    following[key] = replace(plans[key], job=further)
            waiting = following
        judgements = {key: _judge(plan, outcomes[key]) for key, plan in plans.items()}
        with self._lock:
            self._num_executed += len(judgements)
            for key, judgement in judgements.items():
                if judgement.verdict is not Verdict.SANDBOX_ERROR:
                    self._known[key] = replace(judgement, executed=False)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return judgements

    def _run(self, plans: dict[bytes, _Plan]) -> dict[bytes, Outcome]:
        stops = [plan.fails for plan in plans.values()] if self.early_stop else None
        jobs = [plan.job for plan in plans.values()]
        return dict(zip(plans, self._sandbox.run(jobs, stops), strict=True))

    def _check_sandbox(self) -> None:
        """Run a known-good and a known-bad program now and then, so that no fault stays silent."""
        with self._lock:
            due = self._checked_at is None or self._num_executed >= self._checked_at + _CANARY_EVERY
            if due:
                self._checked_at = self._num_executed
        if not due:
            return
        good, bad = self._sandbox.run([_CANARY, _BAD_CANARY])
        values = [seen.value for seen in good.observations_N]
        if values != [2, 3] or bad.kind is not Ending.RUNTIME_ERROR:
            raise SandboxError(f"sandbox: misjudged a known program (good: {good}, bad: {bad})")

    def close(self) -> None:
        """End the sandbox."""
        self._sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to run, and for each observation whether it is right."""

    job: Job
    checks: tuple[Check, ...]

    def fails(self, test: int, seen: Observation) -> bool:
        """Whether what was seen of a test fails it."""
        return _verdict(seen, self.checks[test]) is not Verdict.PASSED


def longest(program: Program, limits: Limits) -> float:
    """Return the seconds that a verdict on a program can take, on a machine that has other work."""
    plan = _plan(program, DEFAULT)  # how answers are compared takes no time
    num_runs = 3 if isinstance(plan.job, AssertJob) else 1  # in one mode, then in others
    return num_runs * STRETCH * limits.of_all(len(plan.checks), plan.job.time_limit_s)


def _key(program: Program) -> bytes:
    digest = blake2b(digest_size=16)
    limit = "" if program.time_limit is None else repr(program.time_limit)
    for part in (program.code, program.tests, program.entry_point or "", limit):
        encoded = part.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


def _plan(program: Program, protocol: Protocol) -> _Plan:
    code = program.code
    tests = parse_tests(program.tests, program.entry_point)
    limit_s = tests.time_limit or program.time_limit
    checks: tuple[Check, ...]
    job: Job
    match tests:
        case StdioTests(cases):
            checks = tuple(partial(_agrees, protocol.same_output, case.output) for case in cases)
            job = StdioJob(
                code=code,
                stdins_N=tuple(case.input for case in cases),
                imports=_joined(protocol.preamble, tests.setup),
                recursion_limit=protocol.recursion_limit,
                output_bytes=_room_for([case.output for case in cases]),
                time_limit_s=limit_s,
            )
        case FunctionalTests(cases, entry_point):
            checks = tuple(partial(_agrees, protocol.same_value, case.output) for case in cases)
            job = CallJob(
                code=code,
                entry_point=entry_point,
                args_N=tuple(case.args for case in cases),
                imports=_joined(protocol.of_functions or protocol.preamble, tests.setup),
                recursion_limit=protocol.recursion_limit,
                output_bytes=_room_for_values(program.tests, cases),
                time_limit_s=limit_s,
            )
        case AssertTests(asserts, setup):
            checks = (_holds,) * len(asserts)
            job = AssertJob(
                code=code,
                # A module of tests that imports the program gives it nothing.
                imports=_joined(
                    protocol.prelude, "" if _imports_program(setup) else imports_of(setup)
                ),
                setup=setup,
                asserts_N=asserts,
                time_limit_s=limit_s,
            )
    return _Plan(job, checks)


def _joined(*parts: str) -> str:
    """Parts of a program, one below the other."""
    return "\n".join(part.removesuffix("\n") for part in parts if part) + "\n" * any(parts)


def _next_job(job: Job, outcome: Outcome) -> AssertJob | None:
    """In which mode a program and its asserts are run once more, if in any.

    An ordinary program that passes has to fail the same tests turned round, unless it is so simple
    that it can only be right. One that is not ordinary, or was seen to do what none does, fails if
    it fails in Python; else the strict way, which shares nothing with it, may say that it passes.
    """
    if not isinstance(job, AssertJob) or job.mode not in ("plain", "bare"):
        return None
    ran = [seen for seen in outcome.observations_N if seen.kind is not Ending.SKIPPED]
    if any(seen.kind is not Ending.UNJUDGED and seen.value is not True for seen in ran):
        return None
    if job.mode == "bare":
        return replace(job, mode="strict")
    if all(seen.settled for seen in ran):
        return None
    passed = all(seen.kind is Ending.FINISHED for seen in ran)
    return replace(job, mode="opposite" if passed else "bare")


def _combined(before: Outcome | None, job: Job, outcome: Outcome) -> Outcome:
    """What the runs of a program say together; the last one was of `job`."""
    if before is None or not isinstance(job, AssertJob):
        return outcome
    observations = outcome.observations_N
    if job.mode == "opposite":
        pairs = zip(before.observations_N, observations, strict=True)
        observations = tuple(_UNMOVED if turned.value is True else seen for seen, turned in pairs)
    elif job.mode == "strict":  # all pass in Python: what fails here is lost on the way
        observations = tuple(_lost(seen) for seen in observations)
    return Outcome(observations_N=observations, seconds=before.seconds + outcome.seconds)


def _lost(seen: Observation) -> Observation:
    if seen.kind in (Ending.UNJUDGED, Ending.SKIPPED) or seen.value is True:
        return seen
    return Observation(Ending.UNJUDGED, detail=f"fails in a process apart only: {seen.detail}")


_UNMOVED = Observation(Ending.UNJUDGED, detail="passes a test that no right program passes")


def _imports_program(setup: str) -> bool:
    return any(
        (isinstance(node, ast.ImportFrom) and node.module == PROGRAM_MODULE)
        or (isinstance(node, ast.Import) and any(a.name == PROGRAM_MODULE for a in node.names))
        for node in ast.walk(ast.parse(setup))
    )


def _room_for_values(tests: str, cases: Sequence[FunctionalCase]) -> int:
    """What one value may need. Measured only where it may matter: it takes a while."""
    if len(tests) < _FEW_CHARS:
        return _room_for([tests])
    return _room_for([json.dumps(case.output) for case in cases])


def _room_for(outputs: Sequence[str]) -> int:
    """What one test may have to put out; a power of two, which says little of what is expected."""
    return 1 << max(len(output.encode(errors="replace")) for output in outputs).bit_length() + 1


def imports_of(setup: str) -> str:
    """The imports of tests: programs may rely on them, and they tell nothing."""
    nodes = [
        node
        for node in ast.parse(setup).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and not any(alias.name.split(".")[0] in _OF_TESTS for alias in node.names)
        and getattr(node, "module", None) not in _OF_TESTS
    ]
    return "\n".join(map(ast.unparse, nodes))


def _agrees(same: Callable[[Any, Any], bool], expected: object, given: object) -> bool:
    return same(given, expected)


def _holds(value: object) -> bool:
    return value is True


def _judge(plan: _Plan, outcome: Outcome) -> ProgramResult:
    ran = [
        (seen, _verdict(seen, check))
        for seen, check in zip(_with_packages(plan.job, outcome), plan.checks, strict=True)
        if seen.kind is not Ending.SKIPPED
    ]
    failed = [(seen, verdict) for seen, verdict in ran if verdict is not Verdict.PASSED]
    # A test that fails decides, whatever cannot be said of the others.
    failed.sort(key=lambda found: found[1] is Verdict.UNJUDGED)
    return ProgramResult(
        verdict=failed[0][1] if failed else Verdict.PASSED,
        num_passed=len(ran) - len(failed),
        num_tests=len(plan.checks),
        seconds=outcome.seconds,
        detail=_detail(failed[0][0]) if failed else "",
        executed=True,
    )


def _with_packages(job: Job, outcome: Outcome) -> list[Observation]:
    """What was seen, with what ended for a missing package as not judged."""
    tests = (job.setup, *job.asserts_N) if isinstance(job, AssertJob) else ()
    found: list[Observation] = []
    for seen in outcome.observations_N:
        lacks = seen.kind is Ending.RUNTIME_ERROR and missing_package(
            seen.detail, (job.code, *tests)
        )
        if lacks:
            detail = f"needs the package {lacks!r}, which is not installed"
            seen = Observation(Ending.UNJUDGED, detail=detail)  # noqa: PLW2901 - another view of it
        found.append(seen)
    return found


def _detail(seen: Observation) -> str:
    if seen.kind is not Ending.FINISHED:
        return seen.detail
    return seen.detail or f"gave {_SHORT.repr(seen.value)}"


def _verdict(seen: Observation, check: Check) -> Verdict:
    if seen.kind is not Ending.FINISHED:
        return Verdict(seen.kind.value)
    return Verdict.PASSED if check(seen.value) else Verdict.WRONG_ANSWER
