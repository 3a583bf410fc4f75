"""Run programs against the tests of their problems, as evaluation and labels need it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from conf.errors import SandboxError
from reward.verify.verdict import Program, ProgramResult
from rl.problems.prompts import time_limit_of
from rl.types import Extraction, Prompt, Verdict

_log = logging.getLogger(__name__)


class Verifying(Protocol):
    """What is needed of `reward.verify.verdict.Verifier`."""

    def verify(self, programs_N: Sequence[Program]) -> list[ProgramResult]:
        """Return a judgement for each program, in order."""
        ...


def program_of(prompt: Prompt, code: str) -> Program:
    """A program for a problem, with the problem's tests and its own time limit."""
    return Program(
        code=code,
        tests=prompt.tests or "",
        entry_point=prompt.entry_point,
        time_limit=time_limit_of(prompt),
    )


def programs_of(prompt: Prompt, extractions_G: Sequence[Extraction]) -> list[Program]:
    """The programs of one group; a completion without code has an empty one."""
    return [program_of(prompt, extraction.code) for extraction in extractions_G]


def verify_persistently(
    verifier: Verifying,
    programs_N: Sequence[Program],
    attempts: int = 3,
    pause_s: float = 1.0,
) -> list[ProgramResult]:
    """Return a judgement for each program, those that the sandbox could not run tried again.

    What still could not be run after `attempts` stays SANDBOX_ERROR: the caller must not take it
    for a failed program. Raises SandboxError when the sandbox as a whole fails that often.
    """
    judgements: dict[int, ProgramResult] = {}
    open_N = list(range(len(programs_N)))
    for attempt in range(1, attempts + 1):
        try:
            found = verifier.verify([programs_N[idx] for idx in open_N])
        except SandboxError as error:
            if attempt == attempts:
                raise
            _log.warning("attempt %d of %d: %s", attempt, attempts, error)
        else:
            judgements.update(zip(open_N, found, strict=True))
            open_N = [idx for idx in open_N if _undecided(judgements[idx])]
        if not open_N:
            break
        if attempt < attempts:
            time.sleep(pause_s * attempt)
    return [judgements[idx] for idx in range(len(programs_N))]


def require_decided(judgements_N: Sequence[ProgramResult], of_what: str) -> None:
    """Raise SandboxError when some program could not be run: that is never a failed program."""
    undecided = [judgement for judgement in judgements_N if _undecided(judgement)]
    if undecided:
        raise SandboxError(
            f"sandbox: {len(undecided)} of {len(judgements_N)} programs of {of_what} could not be "
            f"run at all ({undecided[0].detail or 'no detail'})"
        )


def _undecided(judgement: ProgramResult) -> bool:
    return judgement.verdict is Verdict.SANDBOX_ERROR
