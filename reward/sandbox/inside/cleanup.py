"""Removes what a program left in its directory, however deep. Standard library only."""

from __future__ import annotations

import contextlib
import itertools
import os


def empty_directory(path: str) -> None:
    """Remove everything in `path`.

    A directory in a directory is moved up before it is looked into: a program can nest them deeper
    than a recursion goes, and deeper than a path may be long.
    """
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # removed, or replaced by something else
        return
    try:
        moved = itertools.count()
        while names := os.listdir(top):
            for name in names:
                if not _unlink(name, top):
                    _flatten(name, top, moved)
    finally:
        os.close(top)


def _unlink(name: str, directory: int) -> bool:
    """Remove one entry; False when it is a directory."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        return False
    return True


def _flatten(name: str, top: int, moved: itertools.count[int]) -> None:
    os.chmod(name, 0o700, dir_fd=top)
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        for entry in os.listdir(directory):
            if not _unlink(entry, directory):
                os.chmod(entry, 0o700, dir_fd=directory)
                while True:  # the program may have used the name
                    with contextlib.suppress(OSError):
                        target = f"moved-{next(moved)}"
                        os.rename(entry, target, src_dir_fd=directory, dst_dir_fd=top)
                        break
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)
