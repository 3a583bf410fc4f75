"""Outputs of a command: their places are checked before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

from conf.errors import UserError


def check_output(output: str, example: str, key: str = "output") -> Path:
    """The path of a file that can be written; raises UserError for another one."""
    path = Path(output)
    if path.is_dir() or _obstacle(path.resolve().parent) is not None:
        raise UserError(f"{key}: {output} cannot be written; give {key}={example}")
    return path


def check_output_dir(output: str, key: str = "output") -> Path:
    """The path of a directory that can be written or made; raises UserError for another one."""
    path = Path(output)
    if (obstacle := _obstacle(path.resolve())) is not None:
        raise UserError(
            f"{key}: {output} cannot be written ({obstacle} is no directory that can be "
            f"written); give {key}=DIR"
        )
    return path


def _obstacle(folder: Path) -> Path | None:
    """What stands in the way of files in `folder`, which need not exist yet."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return None if there.is_dir() and os.access(there, os.W_OK) else there
