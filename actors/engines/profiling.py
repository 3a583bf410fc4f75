"""Profiles of a rank: what torch does in chosen RL steps, as traces for Perfetto or Chrome.

A profile only informs: a warning says why there is none, and the run goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def trace_file(directory: Path, step: int, rank: int) -> Path:
    """Where a rank writes the trace of a step."""
    return directory / f"step-{step:06d}-rank-{rank}.json.gz"


def traces(directory: Path, step: int) -> list[Path]:
    """Those of all ranks that were written for a step."""
    return sorted(directory.glob(f"step-{step:06d}-rank-*.json.gz"))


class StepProfiler:
    """Profiles the work of a rank in the RL steps that are asked for.

    A step begins with the first work after a publication, and ends with the next one.
    """

    def __init__(self, steps: Collection[int], directory: Path, rank: int) -> None:
        self._steps = frozenset(steps)
        self._directory = directory
        self._rank = rank
        self._step = 1  # the one that comes
        self._running: Any = None

    def begin(self) -> None:
        """Take note of what follows, if it is of a step that is asked for."""
        if self._step not in self._steps or self._running is not None:
            return
        try:
            import torch  # noqa: PLC0415 - only where a rank has it anyway

            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            profile = torch.profiler.profile(activities=activities, record_shapes=True)
            profile.start()
            self._running = profile
        except Exception as error:  # noqa: BLE001 - whatever a profiler raises
            logger.warning("step %d is not profiled: %s", self._step, error)
            self._steps -= {self._step}

    def end(self, policy_version: int) -> None:
        """The work of a step is done; its weights are published as this version."""
        profile, self._running = self._running, None
        if profile is not None:
            try:
                profile.stop()
                path = trace_file(self._directory, self._step, self._rank)
                path.parent.mkdir(parents=True, exist_ok=True)
                profile.export_chrome_trace(str(path))
            except Exception as error:  # noqa: BLE001 - a full disk, or whatever a profiler raises
                logger.warning("the profile of step %d is lost: %s", self._step, error)
        self._step = policy_version + 1
