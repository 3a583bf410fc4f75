"""Outputs of a command: their places are checked before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from conf.errors import UserError

_NAME = 255  # bytes of one name, on the file systems of Linux
_SHOWN_CHARS = 30  # of a name that is too long


def check_output(output: str, example: str, key: str = "output") -> Path:
    """The path of a file that can be written; raises UserError for another one."""
    path = Path(output)
    obstacle = _obstacle(path.resolve().parent, path.name)
    if obstacle is None and path.is_dir():
        obstacle = "it is a directory"
    elif obstacle is None and path.exists() and not path.is_file():  # a file would take its place
        obstacle = "it is a device or a pipe"
    if obstacle is not None:
        raise UserError(f"{key}: {output} cannot be written ({obstacle}); give {key}={example}")
    return path


def check_output_dir(output: str, key: str = "output") -> Path:
    """The path of a directory that can be written or made; raises UserError for another one."""
    if not output:  # which Path takes for the current directory
        raise UserError(f"{key}: has no value; give {key}=DIR")
    path = Path(output)
    if (obstacle := _obstacle(path.resolve())) is not None:
        raise UserError(f"{key}: {output} cannot be written ({obstacle}); give {key}=DIR")
    return path


def check_new_dir(output: str, key: str = "output") -> Path:
    """`check_output_dir` of one that holds nothing yet; raises UserError for another one."""
    path = check_output_dir(output, key)
    if path.exists() and any(path.iterdir()):
        raise UserError(f"{key}: {path} is not empty; give another {key}=DIR")
    return path


def _obstacle(folder: Path, *names: str) -> str | None:
    """What stands in the way of files in `folder`, which need not exist yet, and of their names.

    Permissions are not asked for but tried: some file systems, as that of `/proc`, take no files
    whatever their permissions say.
    """
    long = next((part for part in (*folder.parts, *names) if len(os.fsencode(part)) > _NAME), None)
    if long is not None:
        return f"{long[:_SHOWN_CHARS]}... is longer than the {_NAME} bytes of a name"
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return f"{there} is not a directory"
    try:
        with TemporaryDirectory(prefix=".", dir=there):
            return None
    except OSError as error:
        return f"{there} takes no files: {error.strerror}"
