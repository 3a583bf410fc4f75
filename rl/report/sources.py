"""Every step with rollouts of a run directory, packed for the page; what is packed is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl.report.steps import PackedStep, pack_step
from rl.run.directory import HELD_OUT, RolloutFolder, RunDirectory
from rl.run.rollouts import read_rollouts

BUDGET_BYTES = 46_000_000  # of all rollouts; scripts, curves and the like add about 2 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of rollout files."""

    folder: RolloutFolder
    label: str
    weight: int  # of its part of the budget, among the sources that a run has


SOURCES = (
    Source(folder=RolloutFolder.TRAINING, label="training", weight=8),
    Source(folder=RolloutFolder.PROBE, label="probe", weight=1),
    Source(folder=RolloutFolder.EVALUATION, label="evaluation", weight=1),
)


@dataclass(slots=True)
class _Kept:
    """The steps of one source that are packed already."""

    stamps: list[tuple[Path, int, int]] = field(default_factory=list[tuple[Path, int, int]])
    steps: list[PackedStep] = field(default_factory=list[PackedStep])
    homes: dict[str, int] = field(default_factory=dict[str, int])
    limit_bytes: int = 0


class PackedRollouts:
    """Packs rollout files, each once: a later call reads only what is new."""

    def __init__(self, directory: Path) -> None:
        self._run = RunDirectory(directory)
        self._kept = {source.folder: _Kept() for source in SOURCES}

    def update(self, config: Mapping[str, Any], last_step: int) -> dict[str, list[PackedStep]]:
        """The steps of each source up to `last_step`, oldest first; sources without any are absent.

        Later files are what an earlier run left there.
        """
        paths = {s: self._run.rollout_files(s.folder, last_step) for s in SOURCES}
        present = [source for source in SOURCES if paths[source]]
        whole = sum(source.weight for source in present)
        found: dict[str, list[PackedStep]] = {}
        for source in present:
            num_steps = max(len(paths[source]), planned_steps(config, source.folder))
            limit = BUDGET_BYTES * source.weight // (whole * num_steps)
            found[source.folder] = self._pack(source.folder, paths[source], limit)
        return found

    def _pack(self, folder: RolloutFolder, paths: list[Path], limit_bytes: int) -> list[PackedStep]:
        kept = self._kept[folder]
        stamps = [_stamp(path) for path in paths]
        # A text lies in the oldest step that shows its problem: what follows a change is stale.
        if kept.limit_bytes != limit_bytes or kept.stamps != stamps[: len(kept.stamps)]:
            kept = self._kept[folder] = _Kept(limit_bytes=limit_bytes)
        for path, stamp in list(zip(paths, stamps, strict=True))[len(kept.stamps) :]:
            rows = read_rollouts(path)
            kept.stamps.append(stamp)
            if rows:
                packed = pack_step(rows, kept.homes, limit_bytes)
                kept.homes = dict.fromkeys(packed.prompt_ids, packed.step) | kept.homes
                kept.steps.append(packed)
        return list(kept.steps)


def planned_steps(config: Mapping[str, Any], folder: RolloutFolder) -> int:
    """Files that a run of this configuration writes into `folder` in all; 0 where it is unknown.

    So that the share of a step is the same while the run goes on.
    """
    num_steps = config.get("algorithm", {}).get("num_steps", 0)
    every = {
        RolloutFolder.TRAINING: config.get("checkpoint", {}).get("rollouts_every", 0),
        RolloutFolder.PROBE: config.get("probe", {}).get("every", 0),
        RolloutFolder.EVALUATION: config.get("evaluation", {}).get("every", 0),
    }[folder]
    both_ends = 2 if folder in HELD_OUT else 0
    return (num_steps // every if every else 0) + (both_ends if num_steps else 0)


def _stamp(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size
