"""Verdicts by execution: labels for preference pairs, evaluation, and the execution reward.

Programs run in `reward.sandbox`; this module alone knows what they should have done, and compares
builtin data in this process. That is what makes a verdict hard to forge: a program sees its inputs,
never what is expected of them. The exception are asserts that are more than a comparison of one
call with a literal (`assert abs(f(1) - 2) < eps`, HumanEval's `check(f)`): they run beside the
program, which could tamper with them.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b
from threading import Lock
from typing import Any, Self, cast

from reward.sandbox import (
    CallJob,
    Job,
    Limits,
    Outcome,
    Sandbox,
    SandboxError,
    Snippet,
    SnippetJob,
    StdioJob,
)
from reward.sandbox_report import Ending, Observation
from rl.prompts import AssertTests, FunctionalTests, StdioTests, parse_tests

_TOLERANCE = 1e-9  # relative and absolute, wherever a float is expected
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_REMEMBERED = 50_000  # judgements kept for programs that come again
_CANARY_EVERY = 200  # executed programs between two checks of the sandbox itself
_CANARY = CallJob(code="def f(x):\n    return x + 1", entry_point="f", args_N=((1,), (2,)))
_BAD_CANARY = CallJob(code="def f(x):\n    raise KeyError(x)", entry_point="f", args_N=((1,),))

Check = Callable[[Any], bool]


class Verdict(StrEnum):
    """What execution says of a program; the first test that is not passed decides."""

    PASSED = "PASSED"
    WRONG_ANSWER = "WRONG_ANSWER"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    TIMEOUT = "TIMEOUT"
    MEMORY = "MEMORY"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    PROCESS_LIMIT = "PROCESS_LIMIT"
    NO_CODE = "NO_CODE"  # there was nothing to run
    SANDBOX_ERROR = "SANDBOX_ERROR"  # nothing is known of the program: never a score of 0


@dataclass(frozen=True, slots=True)
class Program:
    """One program and the tests that it has to pass, as a canonical row states them.

    >>> Program("def f(x): return 2 * x", '[{"input": [2], "output": 4}]', "f").entry_point
    'f'
    """

    code: str
    tests: str  # JSON
    entry_point: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
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


class Verifier:
    """Judges programs by their tests. Thread-safe; use it as a context manager.

    `timeout_s` is wall clock of one program over all its tests. The same code with the same tests
    is run once, now and later; only what ran counts in `num_executed` and is `executed`.
    """

    def __init__(self, workers: int = 1, timeout_s: float = 4.0) -> None:
        self._sandbox = Sandbox(workers, Limits(wall_s=timeout_s))
        self._lock = Lock()
        self._known: OrderedDict[bytes, Judgement] = OrderedDict()
        self._num_executed = 0
        self._checked_at: int | None = None  # `num_executed` when the canaries last ran

    @property
    def num_executed(self) -> int:
        """Programs that were run so far."""
        return self._num_executed

    def verify(self, programs_N: Sequence[Program]) -> list[Judgement]:
        """Return a judgement for each program, in order.

        Raises DataError on malformed tests, and SandboxError when the sandbox misjudges a program
        that is known to be good or bad.
        """
        keys = [_key(program) for program in programs_N]
        found: dict[bytes, Judgement] = {}
        plans: dict[bytes, _Plan] = {}
        with self._lock:
            for key in set(keys) & self._known.keys():
                found[key] = self._known[key]
                self._known.move_to_end(key)
        for key, program in zip(keys, programs_N, strict=True):
            if key in found or key in plans:
                continue
            plan = _plan(program)
            if program.code.strip():
                plans[key] = plan
            else:
                found[key] = Judgement(
                    verdict=Verdict.NO_CODE, num_passed=0, num_tests=len(plan.checks)
                )
        fresh = self._execute(plans)
        found |= {key: replace(judgement, executed=False) for key, judgement in fresh.items()}
        return [fresh.pop(key, found[key]) for key in keys]

    def _execute(self, plans: dict[bytes, _Plan]) -> dict[bytes, Judgement]:
        if not plans:
            return {}
        self._check_sandbox()
        outcomes = self._sandbox.run([plan.job for plan in plans.values()])
        judgements = {
            key: _judge(plan, outcome)
            for (key, plan), outcome in zip(plans.items(), outcomes, strict=True)
        }
        with self._lock:
            self._num_executed += len(judgements)
            for key, judgement in judgements.items():
                if judgement.verdict is not Verdict.SANDBOX_ERROR:
                    self._known[key] = replace(judgement, executed=False)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return judgements

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


def _key(program: Program) -> bytes:
    digest = blake2b(digest_size=16)
    for part in (program.code, program.tests, program.entry_point or ""):
        encoded = part.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


def _plan(program: Program) -> _Plan:
    match parse_tests(program.tests, program.entry_point):
        case StdioTests(cases):
            stdins = tuple(case.input for case in cases)
            checks = tuple(_prints(case.output) for case in cases)
            return _Plan(StdioJob(code=program.code, stdins_N=stdins), checks)
        case FunctionalTests(cases, entry_point):
            args = tuple(case.args for case in cases)
            checks = tuple(_returns(case.output) for case in cases)
            return _Plan(CallJob(code=program.code, entry_point=entry_point, args_N=args), checks)
        case AssertTests(asserts, setup):
            snippets, checks = zip(*(_split_assert(source) for source in asserts), strict=True)
            return _Plan(SnippetJob(code=program.code, setup=setup, snippets_N=snippets), checks)


def _judge(plan: _Plan, outcome: Outcome) -> Judgement:
    verdicts = [
        _verdict(seen, check)
        for seen, check in zip(outcome.observations_N, plan.checks, strict=True)
    ]
    failed = [idx for idx, verdict in enumerate(verdicts) if verdict is not Verdict.PASSED]
    return Judgement(
        verdict=verdicts[failed[0]] if failed else Verdict.PASSED,
        num_passed=len(verdicts) - len(failed),
        num_tests=len(verdicts),
        seconds=outcome.seconds,
        detail=outcome.observations_N[failed[0]].detail if failed else "",
        executed=True,
    )


def _verdict(seen: Observation, check: Check) -> Verdict:
    if seen.kind is not Ending.FINISHED:
        return Verdict(seen.kind.value)
    return Verdict.PASSED if check(seen.value) else Verdict.WRONG_ANSWER


# ---------------------------------------------------------------- function values


def _returns(expected: object) -> Check:
    return lambda value: same_value(value, expected)


def same_value(value: object, expected: object) -> bool:
    """Return whether `value` is what the JSON value `expected` stands for.

    As JSON knows types: a tuple is a list and keys are strings, but a boolean is no number and an
    integer is no float. Only where a float is expected may an integer stand, and only there is
    there a tolerance (1e-9, relative or absolute); NaN equals NaN.
    """
    match expected:
        case bool() | None | str() | int():
            return type(value) is type(expected) and value == expected
        case float():
            return type(value) in (int, float) and _close(cast("float", value), expected)
        case list():
            wanted = cast("list[object]", expected)
            if not isinstance(value, list | tuple):
                return False
            items = cast("Sequence[object]", value)
            return len(items) == len(wanted) and all(map(same_value, items, wanted))
        case dict():
            wanted = cast("dict[str, object]", expected)
            items = _with_json_keys(value)
            return items.keys() == wanted.keys() and all(
                same_value(items[key], wanted[key]) for key in wanted
            )
        case _:
            return False


def _with_json_keys(value: object) -> dict[object, object]:
    """Return a dictionary with the keys that JSON gives it; a key that it has none for stays."""
    if not isinstance(value, dict):
        return {None: value}  # equal to no keys of JSON
    items = cast("dict[object, object]", value)
    return {_json_key(key): item for key, item in items.items()}


def _json_key(key: object) -> object:
    return json.dumps(key) if key is None or isinstance(key, bool | int | float) else key


def _close(value: float, expected: float) -> bool:
    if math.isnan(expected):
        return math.isnan(value)
    try:
        return math.isclose(value, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    except OverflowError:  # an integer beyond the range of floats
        return False


# ---------------------------------------------------------------- standard output


def _prints(expected: str) -> Check:
    return lambda stdout: same_output(stdout, expected)


def same_output(stdout: str, expected: str) -> bool:
    """Return whether two outputs agree under LiveCodeBench's rule for white space.

    White space around the output, around each line and between tokens does not count; the number of
    lines does. Tokens agree as text, or as decimal numbers within 1e-9 (relative or absolute) when
    one of the two has a decimal point or an exponent: integers agree exactly or not at all.
    """
    lines, wanted = _tokens(stdout), _tokens(expected)
    return len(lines) == len(wanted) and all(map(_same_line, lines, wanted))


def _tokens(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().split("\n")]


def _same_line(line: list[str], wanted: list[str]) -> bool:
    return len(line) == len(wanted) and all(map(_same_token, line, wanted))


def _same_token(token: str, wanted: str) -> bool:
    if token == wanted:
        return True
    if not (_NUMBER.fullmatch(token) and _NUMBER.fullmatch(wanted)):
        return False
    if token.lstrip("+-").isdecimal() and wanted.lstrip("+-").isdecimal():
        return False
    return _close(float(token), float(wanted))


# ---------------------------------------------------------------- asserts


def _split_assert(source: str) -> tuple[Snippet, Check]:
    """Return what to run in the sandbox for an assert, and what has to be seen.

    A comparison with a literal, and a bare call, are split: the sandbox evaluates the other side
    only. Anything else runs there as it is.
    """
    try:
        body = ast.parse(source).body
    except SyntaxError:
        body = []  # the same error will show in the sandbox
    match body:
        case [ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]))]:
            for observed, literal in ((left, right), (right, left)):
                with contextlib.suppress(ValueError):
                    return _expression(observed), _equals(ast.literal_eval(literal))
        case [
            ast.Assert(
                test=ast.Compare(
                    left=left,
                    ops=[ast.Is()],
                    comparators=[ast.Constant(value=True | False | None as constant)],
                )
            )
        ]:
            return _expression(left), lambda value: value is constant
        case [ast.Assert(test=ast.Call() as call)]:
            return _expression(call), bool
        case [ast.Assert(test=ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call))]:
            return _expression(call), lambda value: not value
        case _:
            pass
    return Snippet(source, is_expression=False), lambda value: value is True


def _expression(node: ast.expr) -> Snippet:
    return Snippet(ast.unparse(node), is_expression=True)


def _equals(literal: object) -> Check:
    return lambda value: value == literal
