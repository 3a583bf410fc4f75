"""The lock of a directory: one process at a time writes there.

The kernel gives it back when its process dies, however it dies; so the file says who held it last,
and never that somebody holds it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from conf.errors import UserError

LOCK_FILE = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def locked(directory: Path, warn: Callable[[str], None], key: str = "name") -> Generator[None]:
    """The directory, made where it is missing, for the body alone; `key` chooses it.

    A body that leaves nothing there leaves no lock either, and no directory that was made for it. A
    file system that knows no locks is warned of, and nobody is kept out there.

    Raises:
        UserError: naming the process that holds it, or why it cannot be made.
    """
    made = not directory.exists()
    while True:
        with _open(directory, key) as file:
            if not _lock(file, directory, warn, key):
                continue
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # it may have been moved, or removed
                    if [path.name for path in directory.iterdir()] == [LOCK_FILE]:
                        (directory / LOCK_FILE).unlink()
                        if made:
                            directory.rmdir()
                fcntl.flock(file, fcntl.LOCK_UN)  # a child that was forked may hold the file open
            return


def _open(directory: Path, key: str) -> IO[str]:
    """The file of the lock, in its directory; whoever held it may be removing both."""
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                return (directory / LOCK_FILE).open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{key}: {directory} cannot be written ({error.strerror}); give another {key}="
            ) from error


def _lock(file: IO[str], directory: Path, warn: Callable[[str], None], key: str) -> bool:
    """Whether it is locked; otherwise whoever held it has removed the file meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "a process that has just started"
        raise UserError(
            f"{key}: {directory} is in use by {holder}; wait until it has ended, or give another "
            f"{key}="
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warn(
            f"{directory} is on a file system without locks ({error.strerror}): nothing keeps a "
            "second command out"
        )
    try:
        if not os.path.samestat(os.fstat(file.fileno()), (directory / LOCK_FILE).stat()):
            return False
    except FileNotFoundError:
        return False
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return True
