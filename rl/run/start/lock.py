"""The lock of a directory: one process at a time writes there.

The kernel gives it back when its process dies, however it dies; so the file says who held it last,
and never that somebody holds it.
"""

from __future__ import annotations

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

    A file system that knows no locks is warned of, and nobody is kept out there.

    Raises:
        UserError: naming the process that holds it, or why it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{key}: {directory} cannot be written ({error.strerror}); give another {key}="
        ) from error
    with file:
        _lock(file, directory, warn, key)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child that was forked may hold the file open


def _lock(file: IO[str], directory: Path, warn: Callable[[str], None], key: str) -> None:
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
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
