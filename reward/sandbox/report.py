"""Reads what a process reported of its tests; the counterpart of `reward.sandbox.inside.program`.

A program may have written anything into its report. Nothing here evaluates it: the result is always
builtin data, and a line that makes no sense ends the report.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from reward.sandbox.inside.values import PLAIN


class Ending(StrEnum):
    """How one test, or the whole process, ended."""

    FINISHED = "FINISHED"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    TIMEOUT = "TIMEOUT"
    MEMORY = "MEMORY"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    PROCESS_LIMIT = "PROCESS_LIMIT"
    SANDBOX_ERROR = "SANDBOX_ERROR"
    UNJUDGED = "UNJUDGED"  # what was seen says nothing of the program
    SKIPPED = "SKIPPED"  # not run, because the caller wanted no more


# What a report may say. The other endings are for us to see, not for the program to claim.
_REPORTED = {
    "runtime_error": Ending.RUNTIME_ERROR,
    "memory": Ending.MEMORY,
    "output_limit": Ending.OUTPUT_LIMIT,
    "process_limit": Ending.PROCESS_LIMIT,
}


@dataclass(frozen=True, slots=True)
class Observation:
    """What one test was seen to do. `value` is builtin data, or text of standard output."""

    kind: Ending
    value: Any = None
    detail: str = ""
    settled: bool = False  # a pass that needs no second run: the program has no means to feign it


def observe_stdio(ending: Observation, status: int, report: bytes, stdout: bytes) -> Observation:
    """Return what a script was seen to do. `ending` and `status` are those of its process."""
    if ending.kind is not Ending.RUNTIME_ERROR:
        return ending
    if status == 0:
        return Observation(Ending.FINISHED, value=stdout.decode(errors="replace"))
    with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
        reported = _observe(json.loads(report.split(b"\n")[0]))
        return ending if reported.kind is Ending.FINISHED else reported
    return ending


def observe_values(
    ending: Observation, report: bytes, num_tests: int
) -> tuple[list[Observation], bool]:
    """Return what the first tests of a process were seen to do, and whether it was loaded.

    There are at most `num_tests`; the one that the process ended in is the last and is `ending`.
    """
    observations: list[Observation] = []
    first, *lines = [*report.split(b"\n")[:-1], b""]
    odd: Observation | None = None
    try:
        match json.loads(first):
            case ["loaded"]:
                pass
            case ["fatal", str(kind), str(detail)]:
                return [Observation(_REPORTED[kind], detail=detail)] * num_tests, False
            case ["unjudged", str(why)]:
                return [Observation(Ending.UNJUDGED, detail=why)] * num_tests, True
            case _:
                return [ending] * num_tests, False
        for line in lines:
            match json.loads(line):
                case ["unjudged", str(why)]:
                    odd = odd or Observation(Ending.UNJUDGED, detail=why)
                case content if len(observations) < num_tests:  # pyright: ignore[reportUnknownVariableType] - observed next
                    observations.append(odd or _observe(cast("object", content)))
                case _:
                    break
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        if not observations and first != b'["loaded"]':
            return [ending] * num_tests, False
    if len(observations) < num_tests:
        observations.append(ending)
    if odd is not None:
        observations = [odd if seen.value is True else seen for seen in observations]
    return observations, True


def _observe(line: object) -> Observation:
    match line:
        case ["settled"]:
            return Observation(Ending.FINISHED, value=True, settled=True)
        case ["value", False, str(detail)]:
            return Observation(Ending.FINISHED, value=False, detail=detail)
        case ["value", value]:  # pyright: ignore[reportUnknownVariableType] - decoded next
            return Observation(Ending.FINISHED, value=PLAIN.decode(cast("object", value)))
        case ["error", str(kind), str(detail)]:
            return Observation(_REPORTED[kind], detail=detail)
        case _:
            raise ValueError(line)
