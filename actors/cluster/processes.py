"""Processes of actors, found by a mark in their environment and ended where they outlive the actor.

Ray ends the process of an actor that is given up, but not always one that stands still, nor what
the actor itself has started. Each keeps memory and a place that the next actor needs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

MARK = "CODESCALER_ACTOR"  # the variable; whatever an actor starts inherits it

_POLL_S = 0.05


def end_marked(marks: Collection[str], grace_s: float, patience_s: float) -> list[int]:
    """End the processes of this machine with one of these marks; the ids of those that stay.

    The process that calls is not among them. Within `grace_s` they may end by themselves. One that
    the kernel does not let go within `patience_s` after that stays, as one does that waits for a
    device which has failed.
    """
    wanted = {f"{MARK}={mark}" for mark in marks}
    kill_s = time.monotonic() + grace_s
    while left := [pid for pid in processes_with(wanted) if pid != os.getpid()]:
        if time.monotonic() > kill_s + patience_s:
            break
        if time.monotonic() > kill_s:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # one that is stopped ends by nothing else
        time.sleep(_POLL_S)
    return left


def processes_with(settings: Iterable[str]) -> list[int]:
    """Processes of this user with one of these `NAME=value` in the environment they started with.

    One that has ended has none any more.
    """
    wanted = {setting.encode() for setting in settings}
    found: list[int] = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")
        except OSError:  # it is another user's, or has gone
            continue
        if not wanted.isdisjoint(environment):
            found.append(int(directory.name))
    return found
