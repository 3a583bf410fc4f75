"""The session of a job: the cluster it works on, the signals that end it, one error if it fails.

Every job that needs Ray opens one. Inside it a job starts its actors; when it is left they are
gone, and what went wrong in groups of tasks is the first error of the project among theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from actors.cluster.cluster import cluster
from actors.cluster.leftovers import remove_leftovers
from actors.cluster.signals import run_until_stopped
from conf.errors import ProjectError, first_cause
from conf.schema import RayConfig
from rl.base.console import Console

T = TypeVar("T")


class Runner(Protocol):
    """Runs a coroutine to its end; a signal cancels it."""

    def __call__(self, body: Coroutine[Any, Any, T]) -> T:
        """The result of `body`; StoppedError when a signal ended it."""
        ...


@contextmanager
def session(
    cfg: RayConfig, namespace: str, check: Callable[[], None] | None = None
) -> Generator[Runner]:
    """The cluster that `cfg` names for the body, and what runs coroutines in it.

    What dead runs of this user left on this machine is removed first. `check` is done while the
    cluster starts, which is mostly waiting; what it raises is raised before the body.

    Raises:
        UserError: as `cluster` does.
        EngineError: as `cluster` does.
        StoppedError: when a signal ends the body.
        ProjectError: in place of the exception group that a failed task leaves.
    """
    if said := remove_leftovers():
        Console().say(said)
    try:
        with cluster(cfg, namespace, check):
            yield run_until_stopped
    except BaseExceptionGroup as group:
        raise first_cause(group) from group


@contextmanager
def kept(path: Path, console: Console) -> Generator[None]:
    """Work whose results are added to `path`: one that is cut short says where it goes on from."""
    try:
        yield
    except ProjectError:
        if path.exists():
            console.say(f"stopped; the same command goes on from {path}")
        raise
