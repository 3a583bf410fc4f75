"""Checkpoints of a run: `checkpoints/step-000010/`, complete or not there at all.

A checkpoint is written beside its final name and renamed when everything is on the disk, with a
manifest (`rl.run.manifest`) as its last file. One that is not as it was written is never resumed
from: the one before it is. Nothing but the step is kept of the sampler and of random numbers: both
are functions of seed and step.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from conf.errors import UserError
from rl.base.files import discarding, replace_directory, set_aside
from rl.run.manifest import faults, seal

_PREFIX = "step-"
_NAME = re.compile(_PREFIX + r"(\d{6,})")
_OWNER_ONLY = 0o700
_MAX_FAULTS = 3  # that are shown of one checkpoint
GOES_ON = "the older checkpoints stay, and the training goes on to the next that is due"
HF = "hf"  # the policy as safetensors, of a checkpoint and of a run
ADAPTER = "adapter"  # adapters by themselves: in the place of `hf` in a checkpoint


def _staged_name(step: int) -> str:
    return f".{_PREFIX}{step:06d}.partial"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One complete checkpoint."""

    directory: Path
    step: int

    @property
    def hf(self) -> Path:
        """The policy as safetensors."""
        return self.directory / HF


class Found(NamedTuple):
    """The newest checkpoint that is as it was written, and a line for each newer one."""

    newest: Checkpoint | None
    refused: tuple[str, ...] = ()


def staging_directory(root: Path, step: int) -> Path:
    """An empty directory in which a checkpoint is assembled."""
    directory = root / _staged_name(step)
    shutil.rmtree(directory, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=_OWNER_ONLY, exist_ok=True)
    directory.mkdir(mode=_OWNER_ONLY)
    return directory


@contextmanager
def staging(root: Path, step: int) -> Generator[Path]:
    """An empty directory in which the body assembles a checkpoint and commits it.

    Where the body raises, nothing of it is left to fill the disk.

    Raises:
        SaveError: when the disk does not take it.
    """
    with discarding(root / _staged_name(step)):
        yield staging_directory(root, step)


def commit(staged: Path, root: Path, step: int, keep: int) -> Checkpoint:
    """Give a staged checkpoint its name; from now on it can be resumed from.

    The newest `keep` stay, this one among them. Those of later steps go: a run that comes to this
    step has refused them.
    """
    seal(staged, step)
    directory = root / f"{_PREFIX}{step:06d}"
    replace_directory(staged, directory)
    there = complete_checkpoints(root)
    older = [checkpoint for checkpoint in there if checkpoint.step <= step]
    for checkpoint in there:
        if checkpoint not in older[-keep:]:
            drop(checkpoint)
    for left in root.glob(f".{_PREFIX}*.old"):
        shutil.rmtree(left, ignore_errors=True)
    return Checkpoint(directory, step)


def complete_checkpoints(root: Path) -> list[Checkpoint]:
    """All checkpoints that were completed, oldest first, by their names alone."""
    named = [(path, _NAME.fullmatch(path.name)) for path in root.glob(f"{_PREFIX}*")]
    found = [Checkpoint(path, int(match[1])) for path, match in named if match]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def find_newest(root: Path) -> Found:
    """The newest checkpoint that is as it was written; every byte of it is read."""
    refused: list[str] = []
    for checkpoint in reversed(complete_checkpoints(root)):
        wrong = faults(checkpoint.directory, checkpoint.step)
        if not wrong:
            return Found(checkpoint, tuple(refused))
        more = f"; and {len(wrong) - _MAX_FAULTS} more" if len(wrong) > _MAX_FAULTS else ""
        shown = "; ".join(wrong[:_MAX_FAULTS])
        refused.append(f"the checkpoint {checkpoint.directory} is refused: {shown}{more}")
    return Found(None, tuple(refused))


def find_resumable(root: Path) -> Found:
    """What `find_newest` finds, for a run that is to go on.

    Raises:
        UserError: when there are checkpoints, and none is as it was written.
    """
    found = find_newest(root)
    if found.newest is None and found.refused:
        advice = "resume: nothing to go on from is left; begin anew with overwrite=true"
        raise UserError("\n".join([*found.refused, advice]))
    return found


def drop(checkpoint: Checkpoint) -> None:
    """Remove a checkpoint; a kill in between leaves no part of it under its name."""
    shutil.rmtree(set_aside(checkpoint.directory), ignore_errors=True)
