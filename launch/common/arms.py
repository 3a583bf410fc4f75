"""Arms of an ablation, drawn: a table and a picture of every run so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from launch.common.plots import Curve, plot_arms
from rl.base.files import replace_file
from rl.base.jsonlines import read_lines


def draw_arms(runs: Path, output: Path) -> None:
    """Write `table.md` and `ablation.png`."""
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    curves = _curves(runs)
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    arms = {label: list(by_seed.values()) for label, by_seed in curves.items()}
    plot_arms(axes, arms, "held-out pass@1")
    figure.tight_layout()
    figure.savefig(output / "ablation.png", dpi=130)
    replace_file(output / "table.md", table(curves))


def _curves(runs: Path) -> dict[str, dict[int, Curve]]:
    """The curve of each run by label and seed; of a seed that was run twice the later one."""
    curves: dict[str, dict[int, Curve]] = defaultdict(dict)
    for line in read_lines(runs):
        record = line.value
        curve = {int(step): value for step, value in record["pass@1"].items()}
        curves[record["label"]][record["seed"]] = curve
    return curves


def table(curves: Mapping[str, Mapping[int, Curve]]) -> str:
    """Mean and range over seeds at each step, an arm a row.

    >>> print(table({"kl": {0: {0: 0.25, 30: 0.5}, 1: {0: 0.75}}}), end="")
    | arm | seeds | step 0 | step 30 |
    |---|---|---|---|
    | kl | 2 | 0.500 (0.250-0.750) | 0.500 (0.500-0.500) |
    """
    steps = sorted({step for runs_of in curves.values() for c in runs_of.values() for step in c})
    rows = [
        "| arm | seeds | " + " | ".join(f"step {step}" for step in steps) + " |",
        "|---|---|" + "---|" * len(steps),
    ]
    for label, by_seed in curves.items():
        cells = [_cell([c[step] for c in by_seed.values() if step in c]) for step in steps]
        rows.append(f"| {label} | {len(by_seed)} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{sum(values) / len(values):.3f} ({min(values):.3f}-{max(values):.3f})"
