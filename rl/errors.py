"""One tree of exceptions. All of them survive pickling, because they cross processes.

Exit codes are part of the contract: `UserError` ends a command with 2, anything else with 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast


class ProjectError(Exception):
    """Root of what this project raises on purpose."""


class UserError(ProjectError, ValueError):
    """Bad input or configuration: names the thing, the value, the rule and the fix. Exit code 2."""


class DataError(UserError):
    """A data file breaks a rule; the message starts with `file:row:column`."""


class PlacementError(UserError):
    """The cluster can not hold the actors that the configuration asks for."""


class DeadlineError(ProjectError, TimeoutError):
    """A wait reached its deadline; the message says what it waited for."""


class EngineError(ProjectError, RuntimeError):
    """An engine (vLLM, DeepSpeed) inside an actor failed."""


class NonFiniteError(ProjectError, ArithmeticError):
    """A score, loss or gradient is NaN or infinite; the message names prompt and sample."""


class VersionMismatchError(ProjectError, RuntimeError):
    """A rollout engine serves another policy version than the step needs."""


class StoppedError(ProjectError):
    """A signal ended a run; what it had started is gone, and its last checkpoint is good."""


class HackingError(ProjectError):
    """The hacking alarm ended a run that was told to stop there; everything is saved."""


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The project's own error inside nested task groups, or else the first one."""
    leaves = list(_leaves(group))
    return next((e for e in leaves if isinstance(e, ProjectError)), leaves[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", error))
        else:
            yield error


def last_error(lines: Iterable[str]) -> str:
    """Of the output of a command, the last line that reports an error, or else the last one.

    >>> last_error(["step 1", "error: EngineError: rollout-0 died", "bye"])
    'EngineError: rollout-0 died'
    """
    texts = [line.strip() for line in lines if line.strip()]
    errors = [text.removeprefix("error: ") for text in texts if text.startswith("error: ")]
    return (errors or texts or [""])[-1]
