"""Exceptions, one tree. All of them survive pickling, because they cross processes.

Exit codes are part of the contract: `UserError` ends a command with 2, anything else with 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import cast

_MAX_CHARS = 1200  # of a foreign message in one line
_FRAME = re.compile(r'\s*File ".*", line \d+')
# Where a manual can be read, and what libraries draw around their messages.
_VALUES = re.compile(r"\s*\[type=[\w.]+, input_value=.*\]$")
_NOISE = re.compile(r"For further information visit|[\s=~^*+|-]*$")


class ProjectError(Exception):
    """Root of what this project raises on purpose."""


class UserError(ProjectError, ValueError):
    """Bad input or configuration: names the thing, the value, the rule and the fix. Exit code 2."""


class DataError(UserError):
    """A data file breaks a rule; the message starts with `file:row:column`."""


class PlacementError(UserError):
    """The cluster cannot hold the actors that the configuration asks for."""


class DeadlineError(ProjectError, TimeoutError):
    """A wait reached its deadline; the message says what it waited for."""


class EngineError(ProjectError, RuntimeError):
    """An engine (vLLM, DeepSpeed) inside an actor failed."""


class SandboxError(ProjectError, RuntimeError):
    """The sandbox itself failed; this says nothing about the program."""


class LostActorError(EngineError):
    """An actor died, or its engine did; the message says what was waited for."""


class LostPolicyError(ProjectError, RuntimeError):
    """A rank of the policy is lost, and with it the state of all ranks; the message names it."""


class SaveError(ProjectError):
    """A checkpoint or a model could not be written; the ranks still hold what it was to be."""


class IncompleteError(ProjectError):
    """A run is done and its model saved, but not all that tells of it; names what is missing."""


class NonFiniteError(ProjectError, ArithmeticError):
    """A score, loss or gradient is NaN or infinite; the message names prompt and sample."""


class VersionMismatchError(ProjectError, RuntimeError):
    """A rollout engine serves another policy version than the step needs."""


class StoppedError(ProjectError):
    """A signal ended a run; its processes have been stopped; its last checkpoint is complete."""


class HackingError(ProjectError):
    """The hacking alarm ended a run (`alarm.action=stop`); everything is saved."""


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The project's own error inside nested task groups, or else the first one."""
    leaves = list(_leaves(group))
    return next((e for e in leaves if isinstance(e, ProjectError)), leaves[0])


def is_lost_policy(error: BaseException) -> bool:
    """Whether the policy was lost, by itself or among the errors of a group."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return any(isinstance(leaf, LostPolicyError) for leaf in _leaves(group))
    return isinstance(error, LostPolicyError)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", error))
        else:
            yield error


def in_one_line(error: BaseException | str) -> str:
    """What a foreign error says, all of it, in one line; an exception with its type.

    Libraries put the reason anywhere: under a headline, above a link, or at the end of a traceback.
    Of a message that ends in a traceback, as Ray's are, what was raised there is taken.

    >>> in_one_line("1 validation error:\\n  too long\\n    For further information visit x")
    '1 validation error: too long'
    >>> in_one_line(OSError("no\\nsuch file"))
    'OSError: no; such file'
    """
    lines = str(error).splitlines()
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    if frames:
        after = frames[-1] + 1
        # The line of source under a frame is indented, and what was raised is not.
        while after < len(lines) and lines[after][:1].isspace():
            after += 1
        lines = lines[after:] or lines[-1:]
    said = ""
    for line in (" ".join(line.split()) for line in lines if not _NOISE.match(line.strip())):
        glue = "" if not said else " " if said.endswith((":", ",", ";", "(", "{", "[")) else "; "
        said += glue + _VALUES.sub("", line)
    if len(said) > _MAX_CHARS:
        half = _MAX_CHARS // 2
        said = f"{said[:half]} ... {said[-half:]}"
    if isinstance(error, str):
        return said
    name = type(error).__name__
    return f"{name}: {said}" if said else name


def last_error(lines: Iterable[str]) -> str:
    """Of the output of a command, the last line that reports an error, or else the last one.

    >>> last_error(["step 1", "error: EngineError: rollout-0 died", "bye"])
    'EngineError: rollout-0 died'
    """
    texts = [line.strip() for line in lines if line.strip()]
    errors = [text.removeprefix("error: ") for text in texts if text.startswith("error: ")]
    return (errors or texts or [""])[-1]
