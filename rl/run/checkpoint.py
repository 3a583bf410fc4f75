"""Checkpoints of a run: `checkpoints/step-000010/`, complete or not there at all.

A checkpoint is written beside its final name and renamed when everything is written, with a
manifest as its last file. What a crash leaves behind has no manifest and is never resumed from.
Nothing but the step is kept of the sampler and of random numbers: both are functions of seed and
step.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from rl.base.files import replace_file

_MANIFEST = "manifest.json"
_PREFIX = "step-"
HF = "hf"  # the policy as safetensors, of a checkpoint and of a run


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One complete checkpoint."""

    directory: Path
    step: int

    @property
    def hf(self) -> Path:
        """The policy as safetensors."""
        return self.directory / HF


def staging_directory(root: Path, step: int) -> Path:
    """An empty directory in which a checkpoint is assembled."""
    directory = root / f".{_PREFIX}{step:06d}.partial"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def commit(staged: Path, root: Path, step: int) -> Checkpoint:
    """Give a staged checkpoint its name; from now on it can be resumed from."""
    replace_file(staged / _MANIFEST, json.dumps({"step": step}))
    directory = root / f"{_PREFIX}{step:06d}"
    shutil.rmtree(directory, ignore_errors=True)
    staged.rename(directory)
    return Checkpoint(directory, step)


def complete_checkpoints(root: Path) -> list[Checkpoint]:
    """All complete checkpoints, oldest first."""
    found: list[Checkpoint] = []
    for manifest in sorted(root.glob(f"{_PREFIX}*/{_MANIFEST}")):
        step = json.loads(manifest.read_text(encoding="ascii"))["step"]
        found.append(Checkpoint(manifest.parent, int(step)))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def prune(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for checkpoint in complete_checkpoints(root)[:-keep]:
        shutil.rmtree(checkpoint.directory)
