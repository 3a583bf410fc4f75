"""Files: one that is to be read is there, and one that is written appears in one piece.

A reader sees the old content or the new, never a part.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from conf.errors import ProjectError, SaveError, in_one_line


def lack_of(path: str | Path) -> str | None:
    """Why there is no file to read under a path, in words; None where there is one.

    A name that no file system takes is a lack like any other; pathlib would raise.

    >>> lack_of("x" * 300), lack_of("."), lack_of("no-such-file")
    ('does not exist', 'is a directory', 'does not exist')
    """
    if os.path.isfile(path):
        return None
    if os.path.isdir(path):
        return "is a directory"
    home = ", and no shell has read its ~ as a home directory" if str(path).startswith("~") else ""
    return f"does not exist{home}"


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the body has ended.

    What was there before stays where the body raises; a process that is killed leaves a file that
    ends in `.partial`, which the next writer overwrites. On return the content is on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"{path.name}.partial")
    try:
        yield staged
        sync(staged)
        staged.replace(path)
        sync(path.parent)  # else a power failure may undo the renaming
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def replace_file(path: Path, text: str) -> None:
    """Write a text in one piece."""
    with replacing(path) as staged:
        staged.write_text(text, encoding="utf-8")


def replace_json(path: Path, value: object, indent: int = 2) -> None:
    """Write a value as indented JSON in one piece."""
    replace_file(path, json.dumps(value, indent=indent) + "\n")


def write_all(file: IO[bytes], content: bytes) -> None:
    """Write to a file that is open without a buffer; a full disk takes a part and then raises."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def replacing_directory(target: Path) -> Generator[Path]:
    """An empty directory beside `target`, which takes its place when the body has ended.

    Raises:
        SaveError: when the disk does not take it; what `target` was stays.
    """
    staged = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staged, ignore_errors=True)
    with discarding(staged):
        staged.mkdir(parents=True)
        yield staged
        replace_directory(staged, target)


@contextmanager
def discarding(staged: Path) -> Generator[None]:
    """A body that fills `staged`: where it raises, nothing is left there to fill the disk.

    Raises:
        SaveError: when the disk does not take it.
    """
    try:
        yield
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, ProjectError):
            raise SaveError(f"{staged} cannot be written: {in_one_line(str(error))}") from error
        raise


def replace_directory(staged: Path, target: Path) -> None:
    """Put a directory in the place of another, which may exist; on return it is on the disk.

    This is where every directory becomes durable; whoever fills one waits for no disk.

    Between two renamings there is neither: what `target` was then lies beside it as `.NAME.old`.
    """
    sync_tree(staged)
    old = set_aside(target) if target.exists() else None
    try:
        staged.rename(target)
    except OSError:
        if old is not None:
            old.rename(target)
        raise
    sync(target.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def set_aside(directory: Path) -> Path:
    """The name `.NAME.old`, which a directory that nobody is to find any more has got."""
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    directory.rename(old)
    return old


def sync_tree(directory: Path) -> None:
    """Wait until every file and directory below, and `directory` itself, is on the disk."""
    for folder, _, files in os.walk(directory, topdown=False):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
