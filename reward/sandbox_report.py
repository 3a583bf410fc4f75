"""Reads what a process reported of its tests; the counterpart of `reward.sandbox_program`.

A program may have written anything into its report. Nothing here evaluates it: the result is always
builtin data, and a line that makes no sense ends the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast


class Ending(StrEnum):
    """How one test, or the whole process, ended."""

    FINISHED = "FINISHED"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    TIMEOUT = "TIMEOUT"
    MEMORY = "MEMORY"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    PROCESS_LIMIT = "PROCESS_LIMIT"
    SANDBOX_ERROR = "SANDBOX_ERROR"


# What a report may say. The other endings are for us to see, not for the program to claim.
_REPORTED = {
    "runtime_error": Ending.RUNTIME_ERROR,
    "memory": Ending.MEMORY,
    "output_limit": Ending.OUTPUT_LIMIT,
    "process_limit": Ending.PROCESS_LIMIT,
}


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that is not built from builtin types; equal to nothing that a test can expect."""

    text: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What one test was seen to do. `value` is builtin data, or text of standard output."""

    kind: Ending
    value: Any = None
    detail: str = ""


def observe_stdio(ending: Observation, status: int, report: bytes, stdout: bytes) -> Observation:
    """Return what a script was seen to do. `ending` and `status` are those of its process."""
    if ending.kind is not Ending.RUNTIME_ERROR:
        return ending
    if status == 0:
        return Observation(Ending.FINISHED, value=stdout.decode(errors="replace"))
    (reported,) = observe_values(ending, report, 1)
    return ending if reported.kind is Ending.FINISHED else reported


def observe_values(ending: Observation, report: bytes, num_tests: int) -> list[Observation]:
    """Return `num_tests` observations; `ending` is what holds for a test without a line."""
    observations: list[Observation] = []
    for line in report.split(b"\n")[:-1][:num_tests]:
        try:
            match json.loads(line):
                case ["value", value]:
                    observations.append(Observation(Ending.FINISHED, value=_decode(value)))
                case ["error", str(kind), str(detail)]:
                    observations.append(Observation(_REPORTED[kind], detail=detail))
                case ["fatal", str(kind), str(detail)]:
                    ending = Observation(_REPORTED[kind], detail=detail)
                    break
                case _:
                    break
        except (ValueError, TypeError, LookupError, RecursionError):
            break
    return observations + [ending] * (num_tests - len(observations))


def _decode(value: object) -> object:
    """Return the value that the report's JSON stands for. Raises ValueError on anything else."""
    if isinstance(value, list):
        return [_decode(item) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    ((word, content),) = cast("dict[str, Any]", value).items()
    if word not in _DECODERS:
        raise ValueError(word)
    return _DECODERS[word](content)


_DECODERS: Mapping[str, Callable[[Any], object]] = {
    "int": lambda content: int(content, 16),
    "tuple": lambda content: tuple(_decode(item) for item in content),
    "set": lambda content: frozenset(_decode(item) for item in content),  # equal to such a set
    "dict": lambda content: {_decode(key): _decode(item) for key, item in content},
    "bytes": bytes.fromhex,
    "opaque": Opaque,
}
