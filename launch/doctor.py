"""What this machine can and cannot do: `python launch/doctor.py`.

With `reward_model=DIR` it says instead who can read the model of a directory, and what that lacks.
"""

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
from actors.plan.reward_group import default_context
from conf.errors import UserError
from conf.schema import key
from launch.common.cli import main_simple
from launch.common.findings import (
    Finding,
    devices,
    experiment_finding,
    fitting_adapters,
    inspect_hardware,
    model_findings,
    origin,
    port_finding,
    versions,
    write_golden,
)
from launch.common.overrides import groups
from reward.model.files import is_local

PACKAGES = ("rl", "actors", "reward", "conf", "launch")
PORTS = {
    6379: "Ray's head node",
    8265: "Ray's dashboard and `ray job submit`",
    52365: "Ray's agent, which starts submitted jobs",
}
PIPED_WIDTH = 160


@dataclass(frozen=True)
class DoctorConfig:
    """Show versions, devices, ports and which experiments run here; or look at a reward model."""

    reward_model: str | None = key("directory of a reward model to look at", None)
    golden_scores: str | None = key(
        "file to which scores of it by plain transformers are written (with reward_model)", None
    )


def doctor(args: DoctorConfig) -> int:
    """Print every finding. The exit code is 0: a machine without GPUs is not an error.

    It is 2 for a reward model that no family can read.
    """
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    if args.reward_model is not None:
        return _look_at(console, args.reward_model, args.golden_scores)
    hardware = inspect_hardware()
    for title, findings in (
        ("Versions", versions()),
        ("Machine", devices(hardware)),
        ("Ports", [port_finding(port, purpose) for port, purpose in PORTS.items()]),
        ("Packages of this tree", [origin(name) for name in PACKAGES]),
        ("Experiments", [experiment_finding(name, hardware) for name in groups()["experiment"]]),
    ):
        console.print(_table(console, title, findings))
    return 0


def _look_at(console: Console, model: str, golden: str | None) -> int:
    """Say who can read a reward model, and how a run uses it."""
    if not is_local(model):
        raise UserError(f"reward_model: {model} is a hub id; download it, and give the directory")
    adapters = fitting_adapters(model)
    console.print(_table(console, f"Reward model {model}", model_findings(model)))
    if not adapters:
        console.print("no family can read it; the remarks say what each needs")
        return 2
    lines = [f"reward.model={model}", f"reward.adapter={adapters[0]}"]
    lines.append(f"reward.max_tokens={default_context(model)}")
    if golden is not None:
        write_golden(model, adapters[0], Path(golden))
        lines.append(f"reward.golden_scores={golden}")
    console.print(f"give a run: {' '.join(lines)}")
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
