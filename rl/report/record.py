"""Record of a run, read from its directory: configuration, metrics, final figures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from conf.errors import UserError
from rl.base.json_text import JsonFault, parse_json
from rl.metrics import read_metrics
from rl.run.directory import RunDirectory
from rl.run.summary import RunSummary, read_summary


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The files of one run that are read whole; rollouts are read step by step."""

    directory: Path
    metrics: tuple[Mapping[str, float], ...]  # one per step, each with `step`
    config_text: str  # "" where the run left none
    summary: RunSummary | None  # None until the run has ended well

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration; empty where the run left none, or none that can be read."""
        try:  # a run writes JSON, which is YAML; YAML's own reader takes 1e-05 for a text
            found = parse_json(self.config_text.encode())
        except JsonFault:
            try:
                found = yaml.safe_load(self.config_text)
            except yaml.YAMLError:
                found = None
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}

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
    run = RunDirectory(directory)
    path = run.metrics
    if not path.is_file():
        raise UserError(f"run: {path} does not exist; give the directory of a run of train.py")
    metrics = read_metrics(path)
    if not metrics:
        raise UserError(f"run: {path} has no complete line; wait for the run's first step")
    return RunRecord(
        directory=directory,
        metrics=metrics,
        config_text=run.config.read_text(encoding="utf-8") if run.config.is_file() else "",
        summary=read_summary(run.summary),
    )
