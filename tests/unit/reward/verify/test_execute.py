"""A program that could not be run is tried again and never counts as failed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from conf.errors import SandboxError
from reward.verify.execute import require_decided, verify_persistently
from reward.verify.verdict import Program, ProgramResult
from rl.types import Verdict

pytestmark = pytest.mark.unit

PROGRAMS = [Program(code=name, tests="[]") for name in "abc"]


def judgement(verdict: Verdict) -> ProgramResult:
    return ProgramResult(verdict=verdict, num_passed=0, num_tests=1, detail=f"why {verdict}")


class Flaky:
    """Gives SANDBOX_ERROR for `broken[code]` calls, then PASSED."""

    def __init__(self, broken: dict[str, int], failures: int = 0) -> None:
        self.broken = broken
        self.failures = failures
        self.asked: list[str] = []

    def verify(self, programs_N: Sequence[Program]) -> list[ProgramResult]:
        self.asked.append("".join(p.code for p in programs_N))
        if self.failures:
            self.failures -= 1
            raise SandboxError("no server")
        found: list[ProgramResult] = []
        for program in programs_N:
            left = self.broken.get(program.code, 0)
            self.broken[program.code] = left - 1
            found.append(judgement(Verdict.SANDBOX_ERROR if left > 0 else Verdict.PASSED))
        return found


def test_only_what_could_not_be_run_is_tried_again() -> None:
    verifier = Flaky({"b": 2})
    found = verify_persistently(verifier, PROGRAMS, pause_s=0)
    assert [j.passed for j in found] == [True] * 3
    assert verifier.asked == ["abc", "b", "b"]


def test_what_can_not_be_run_at_all_stays_undecided_and_is_refused() -> None:
    found = verify_persistently(Flaky({"b": 9}), PROGRAMS, pause_s=0)
    assert [j.verdict for j in found] == [Verdict.PASSED, Verdict.SANDBOX_ERROR, Verdict.PASSED]
    with pytest.raises(SandboxError, match=r"1 of 3 programs of problem p .*why SANDBOX_ERROR"):
        require_decided(found, "problem p")
    require_decided([found[0]], "problem p")


def test_a_sandbox_that_fails_as_a_whole_is_tried_again_then_reported() -> None:
    assert len(verify_persistently(Flaky({}, failures=2), PROGRAMS, pause_s=0)) == 3
    with pytest.raises(SandboxError, match="no server"):
        verify_persistently(Flaky({}, failures=3), PROGRAMS, pause_s=0)


def test_no_program_asks_nothing_of_the_sandbox_twice() -> None:
    assert verify_persistently(Flaky({}), [], pause_s=0) == []
