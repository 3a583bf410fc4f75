"""Arms of an ablation, drawn: tables and a picture of every run so far."""

from __future__ import annotations

from pathlib import Path

from conf.errors import UserError
from launch.common.plots import plot_arms
from rl.base.files import replace_file
from rl.report.arms import curves_table, read_runs, verdicts_table


def check_arms(runs: Path, label: str, beside: str | None) -> None:
    """Refuse to compare with an arm that was not run."""
    known = read_runs(runs)
    if beside is not None and beside not in {*known, label}:
        found = ", ".join(map(repr, known)) or "none"
        raise UserError(
            f"beside: {beside!r} is no arm of {runs}; it has {found} (run that arm first, or leave "
            "the key out)"
        )


def draw_arms(runs: Path, output: Path, beside: str | None) -> None:
    """Write `table.md` and `ablation.png`; arms are compared with `beside`, else with the first."""
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    arms = read_runs(runs)
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    curves = {label: [run.pass_at_1 for run in of_arm] for label, of_arm in arms.items()}
    plot_arms(axes, curves, "held-out pass@1")
    figure.tight_layout()
    figure.savefig(output / "ablation.png", dpi=130)
    beside = next(iter(arms)) if beside is None else beside
    tables = [curves_table(arms)]
    if len(arms) > 1:
        tables.append(verdicts_table(arms, beside))
    replace_file(output / "table.md", "\n".join(tables))
