"""What this machine can and cannot do: `python launch/doctor.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import rl.base.early  # noqa: F401 - signals are heard from here on
from launch.common.cli import main_simple
from launch.common.findings import (
    Finding,
    devices,
    experiment_finding,
    inspect_hardware,
    origin,
    port_finding,
    versions,
)
from launch.common.overrides import groups

PACKAGES = ("rl", "actors", "reward", "conf", "launch")
PORTS = {
    6379: "Ray's head node",
    8265: "Ray's dashboard and `ray job submit`",
    52365: "Ray's agent, which starts submitted jobs",
}
PIPED_WIDTH = 160


@dataclass(frozen=True)
class DoctorConfig:
    """Show versions, devices, ports and which experiments run here. There are no keys."""


def doctor(_: DoctorConfig) -> int:
    """Print every finding. The exit code is 0: a machine without GPUs is not an error."""
    hardware = inspect_hardware()
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    for title, findings in (
        ("Versions", versions()),
        ("Machine", devices(hardware)),
        ("Ports", [port_finding(port, purpose) for port, purpose in PORTS.items()]),
        ("Packages of this tree", [origin(name) for name in PACKAGES]),
        ("Experiments", [experiment_finding(name, hardware) for name in groups()["experiment"]]),
    ):
        console.print(_table(console, title, findings))
    return 0


def _table(console: Console, title: str, findings: Iterable[Finding]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, show_header=False)
    if not console.is_terminal:
        table.box = None
    for finding in findings:
        table.add_row(*finding)
    return table


if __name__ == "__main__":
    sys.exit(main_simple(DoctorConfig, doctor))
