"""Grafana dashboard of runs, installed: `python launch/grafana.py [folder=DIR]` on Ray's head node.

A run that starts Ray itself does this on its own.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.errors import UserError
from conf.schema import key
from launch.common.cli import main_simple


@dataclass(frozen=True, kw_only=True)
class GrafanaArgs:
    """What `launch/grafana.py` takes."""

    folder: str | None = key(
        "folder in which Grafana looks for dashboards; null is that of the most recently "
        "started Ray on this machine",
        None,
    )


def run(args: GrafanaArgs) -> None:
    """Copy the dashboard."""
    from actors.observe.dashboard import FOLDER, copy_to  # noqa: PLC0415 - Ray, after the arguments

    folder = Path(args.folder) if args.folder else _rays_folder(FOLDER)
    if not folder.is_dir():
        raise UserError(
            f"folder: {folder} is not a directory; start Ray with its dashboard on this machine, "
            "or give folder=DIR, one that Grafana reads dashboards from"
        )
    written = copy_to(folder)
    sys.stdout.write(f"{written}: Grafana shows it within half a minute, as CodeScaler\n")


def _rays_folder(of_session: Path) -> Path:
    """Where Ray's own dashboards are; the environment may have told Ray another place."""
    told = os.environ.get("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR")
    root = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return Path(told) if told else Path(root) / "ray/session_latest" / of_session


if __name__ == "__main__":
    sys.exit(main_simple(GrafanaArgs, run))
