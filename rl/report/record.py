"""What a run directory says of its run: configuration, metrics, final figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rl.errors import DataError, UserError

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The files of one run that are read whole; rollouts are read step by step."""

    directory: Path
    metrics: tuple[Mapping[str, float], ...]  # one per step, each with `step`
    config_text: str  # "" where the run left none
    summary: Mapping[str, Any] | None  # None until the run has ended well

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration; empty where the run left none."""
        return cast("dict[str, Any]", json.loads(self.config_text)) if self.config_text else {}

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that two runs share only if their configurations are equal."""
        return hashlib.sha256(self.config_text.encode()).hexdigest()[:12]

    @property
    def last_step(self) -> int:
        """The newest step of the metrics."""
        return int(self.metrics[-1]["step"])


def read_record(directory: Path) -> RunRecord:
    """Read a run directory, finished or not.

    Raises UserError where there is no run, and DataError for a malformed line of its metrics; a
    last line without its end, as a run leaves it that is killed or still writing, is left out.
    """
    if not directory.is_dir():
        raise UserError(f"run: {str(directory)!r} is not a directory; give the directory of a run")
    path = directory / METRICS_FILE
    if not path.is_file():
        raise UserError(f"run: {path} does not exist; give the directory of a run of train.py")
    metrics = _read_metrics(path)
    if not metrics:
        raise UserError(f"run: {path} has no complete line; wait for the run's first step")
    config, summary = directory / "config.yaml", directory / "summary.json"
    return RunRecord(
        directory=directory,
        metrics=metrics,
        config_text=config.read_text(encoding="utf-8") if config.is_file() else "",
        summary=json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else None,
    )


def _read_metrics(path: Path) -> tuple[Mapping[str, float], ...]:
    *lines, _torn = path.read_text(encoding="utf-8").split("\n")
    found: list[Mapping[str, float]] = []
    for row, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{row}:{error.colno}: not a JSON object ({error.msg})"
            ) from None
    return tuple(found)
