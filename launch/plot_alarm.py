"""Draw a run's reward, its probe and its alarm: `python launch/plot_alarm.py run=DIR`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.errors import UserError
from conf.schema import key
from launch.common.cli import main_simple
from rl.metrics import read_metrics
from rl.run.directory import RunDirectory

LEFT = {"probe/pass@1": "probe, pass@1", "eval/pass@1": "test split, pass@1"}
RIGHT = {"probe/reward": "probe, reward", "reward/mean": "training, reward"}


@dataclass(frozen=True, kw_only=True)
class PlotArgs:
    """What `launch/plot_alarm.py` takes."""

    run: str = key("run directory, with its metrics.jsonl")
    output: str | None = key("picture to write; null is RUN/alarm.png", None)


def run(args: PlotArgs) -> None:
    """Draw what `metrics.jsonl` holds."""
    run_directory = RunDirectory(Path(args.run))
    metrics = run_directory.metrics
    if not metrics.is_file():
        raise UserError(f"run: {metrics} does not exist; give the directory of a run")
    lines = read_metrics(metrics)
    if not any("probe/pass@1" in line for line in lines):
        raise UserError(
            f"run: {metrics} has no probe/pass@1; no probe was due in these steps (probe.every)"
        )
    target = Path(args.output) if args.output else run_directory.alarm_plot
    target.parent.mkdir(parents=True, exist_ok=True)
    draw(lines, target)
    sys.stdout.write(f"{target}\n")


def draw(lines: Sequence[Mapping[str, float]], target: Path) -> None:
    """pass@1 on the left axis, rewards on the right one, a line where an alarm began."""
    import matplotlib  # noqa: PLC0415 - after the arguments are good

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, left = pyplot.subplots(figsize=(8, 4.5))
    right = left.twinx()
    for axes, names, colours in ((left, LEFT, ("C0", "C9")), (right, RIGHT, ("C1", "#fdd0a2"))):
        for (name, label), colour in zip(names.items(), colours, strict=True):
            seen = [(line["step"], line[name]) for line in lines if name in line]
            if seen:
                axes.plot(*zip(*seen, strict=True), color=colour, label=label)
    for step in alarms(lines):
        left.axvline(step, color="C3", linestyle="--", label=f"alarm, step {step}")
    left.set(xlabel="RL step", ylabel="pass@1", ylim=(0, 1))
    right.set_ylabel("reward")
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": len(handles)}
    left.legend(handles=handles, fontsize=8, frameon=False, **above)
    left.set_zorder(right.get_zorder() + 1)
    left.patch.set_visible(False)
    left.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=130)


def alarms(lines: Sequence[Mapping[str, float]]) -> list[int]:
    """The steps at which an episode of the alarm began."""
    probed = [line for line in lines if "alarm/fired" in line]
    before = [0.0, *(line["alarm/fired"] for line in probed)]
    return [int(p["step"]) for p, b in zip(probed, before, strict=False) if p["alarm/fired"] > b]


if __name__ == "__main__":
    sys.exit(main_simple(PlotArgs, run))
