"""What this user's processes keep below the temporary directory: scratch directories, and turns.

A process holds a lock in each of its own directories for as long as it lives; the kernel gives it
back however the process ends. So a directory whose lock can be had is nobody's any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_PREFIX = "codescaler-"
_LOCK = ".lock"
_YOUNG_S = 2.0  # a directory that its process may not have locked yet


class Scratch:
    """A new directory below the temporary one, gone when it is left; `what` is part of its name."""

    def __init__(self, what: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{what}-"))
        self._lock = _open(self.path / _LOCK)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def release(self) -> None:
        """Leave the directory to the next `remove_dead`."""
        self._lock.close()

    def cleanup(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cleanup()


def dead(what: str = "") -> Iterator[Path]:
    """The directories that dead processes of this user left, each locked meanwhile.

    With `what`, those that were made for it.
    """
    folder = Path(tempfile.gettempdir())
    for path in sorted(folder.glob(f"{_PREFIX}{what}*")):
        try:
            if not _is_ours(path) or time.time() - path.stat().st_mtime < _YOUNG_S:
                continue
            with _open(path / _LOCK) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path
        except OSError:  # alive, or removed by somebody else just now
            continue


def made_s(path: Path) -> float:
    """When such a directory was made; what is put into it later does not count."""
    return (path / _LOCK).stat().st_mtime


@contextmanager
def one_at_a_time(names: Iterable[str]) -> Generator[None]:
    """A turn: the body waits while another process of this user is in one under any of the names.

    The turn of a process that dies ends with it. There is no deadline in here: whoever started the
    processes has one.
    """
    with ExitStack() as stack:
        for name in sorted(names):  # all in one order, so that no two wait for each other
            path = Path(tempfile.gettempdir()) / f"{_PREFIX}{os.geteuid()}-{name}.turn"
            file = stack.enter_context(_open(path))
            fcntl.flock(file, fcntl.LOCK_EX)
            # A child that was forked may hold the file open.
            stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
        yield


def _open(path: Path) -> IO[bytes]:
    """The file of a lock, which only its owner may open: a program in there is another user."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)


def _is_ours(path: Path) -> bool:
    status = path.lstat()
    return path.is_dir() and not path.is_symlink() and status.st_uid == os.geteuid()
