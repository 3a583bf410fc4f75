"""Files that are written in one piece: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


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
        _sync(staged)
        staged.replace(path)
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


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
