"""Report of a sweep: a table of its jobs, means over seeds, and curves.

`sweep.json` holds all of it, `sweep.md` the tables, `sweep.png` the curves.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.common.plots import Curve, plot_arms
from rl.base.files import replace_file, replace_json
from rl.metrics import read_metrics
from rl.run.directory import RunDirectory
from rl.run.summary import read_summary

SEED = "seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The final figures of a run; None where it has none."""

    base: float | None = None  # pass@1 of the initial policy
    final: float | None = None  # pass@1 of the trained policy
    best_of: float | None = None  # accuracy of the initial policy, one of `num_samples` chosen
    num_samples: int | None = None
    wall_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One job in the table."""

    number: int
    swept: Mapping[str, str]
    directory: str
    status: str
    error: str
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The finished jobs that differ in their seed only."""

    swept: Mapping[str, str]  # the other keys
    seeds: tuple[str, ...]
    base: tuple[float, float] | None  # mean and standard deviation (n - 1) of pass@1
    final: tuple[float, float] | None
    best_of: tuple[float, float] | None


def read_figures(directory: Path) -> Figures:
    """The figures of the run in `directory`; all None without a `summary.json`."""
    summary = read_summary(RunDirectory(directory).summary)
    if summary is None:
        return Figures()
    return Figures(
        base=summary.base.pass_at_1,
        final=summary.final.pass_at_1,
        best_of=summary.base.best_of,
        num_samples=summary.num_samples,
        wall_s=summary.wall_s,
    )


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """Means over seeds, in order of the jobs; nothing where the sweep does not vary the seed."""
    members: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        if row.status == "done" and SEED in row.swept:
            others = tuple((key, value) for key, value in row.swept.items() if key != SEED)
            members.setdefault(others, []).append(row)
    return [
        Group(
            swept=dict(others),
            seeds=tuple(row.swept[SEED] for row in alike),
            base=mean_and_std([row.figures.base for row in alike]),
            final=mean_and_std([row.figures.final for row in alike]),
            best_of=mean_and_std([row.figures.best_of for row in alike]),
        )
        for others, alike in members.items()
    ]


def mean_and_std(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and sample standard deviation of the values that are there; 0 spread for a single one.

    >>> mean_and_std([0.5, None, 0.5])
    (0.5, 0.0)
    """
    there = [value for value in values if value is not None]
    if not there:
        return None
    return statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else 0.0


def write_report(directory: Path, rows: Sequence[Row]) -> str:
    """Write `sweep.json` and `sweep.md` into `directory`; the text of the latter."""
    directory.mkdir(parents=True, exist_ok=True)
    groups = groups_of(rows)
    document = {
        "jobs": [dataclasses.asdict(row) for row in rows],
        "groups": [dataclasses.asdict(group) for group in groups],
    }
    replace_json(directory / "sweep.json", document)
    text = markdown(rows, groups)
    replace_file(directory / "sweep.md", text)
    return text


def markdown(rows: Sequence[Row], groups: Sequence[Group]) -> str:
    """The tables of a sweep."""
    keys = list(dict.fromkeys(key for row in rows for key in row.swept))
    best = _name_of_best(rows)
    header = ["job", *keys, "status", "base pass@1", "final pass@1", best, "wall"]
    cells = [
        [
            str(row.number),
            *(row.swept.get(key, "-") for key in keys),
            row.status,
            _share(row.figures.base),
            _share(row.figures.final),
            _share(row.figures.best_of),
            "-" if row.figures.wall_s is None else f"{row.figures.wall_s:.0f} s",
        ]
        for row in rows
    ]
    text = _table(header, cells)
    if groups:
        others = [key for key in keys if key != SEED]
        cells = [
            [
                *(group.swept.get(key, "-") for key in others),
                str(len(group.seeds)),
                *(_spread(pair) for pair in (group.base, group.final, group.best_of)),
            ]
            for group in groups
        ]
        header = [*others, "seeds", "base pass@1", "final pass@1", best]
        text += "\nMean +- standard deviation over seeds:\n\n" + _table(header, cells)
    errors = [f"- job {row.number}: {row.error}\n" for row in rows if row.error]
    return text + ("\nFailed:\n\n" + "".join(errors) if errors else "")


def draw(directory: Path, rows: Sequence[Row]) -> None:
    """Write `sweep.png`: reward and held-out pass@1 over the steps of the finished jobs."""
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    rewards: dict[str, list[Curve]] = {}
    solved: dict[str, list[Curve]] = {}
    for row in rows:
        if row.status != "done":
            continue
        others = [f"{key}={value}" for key, value in row.swept.items() if key != SEED]
        arm = " ".join(others) or "all seeds"
        path = RunDirectory(Path(row.directory)).metrics
        lines = read_metrics(path) if path.is_file() else ()
        rewards.setdefault(arm, []).append(_curve(lines, "reward/mean"))
        solved.setdefault(arm, []).append(_pass_curve(lines, row.figures))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    plot_arms(left, rewards, "mean reward")
    plot_arms(right, solved, "held-out pass@1")
    figure.tight_layout()
    figure.savefig(directory / "sweep.png", dpi=130)
    pyplot.close(figure)


def _curve(lines: Sequence[Mapping[str, Any]], name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in lines if name in line}


def _pass_curve(lines: Sequence[Mapping[str, Any]], figures: Figures) -> dict[int, float]:
    """The evaluations at both ends, and those in between where the run has any."""
    curve = _curve(lines, "eval/pass@1")
    if figures.base is not None:
        curve = {0: figures.base} | curve
    if figures.final is not None and lines:
        curve[lines[-1]["step"]] = figures.final
    return curve


def _name_of_best(rows: Sequence[Row]) -> str:
    sizes = sorted({row.figures.num_samples for row in rows if row.figures.num_samples})
    return "bon" + "/".join(map(str, sizes))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _spread(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else f"{pair[0]:.3f} +- {pair[1]:.3f}"


def _table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]

    def line(texts: Sequence[str]) -> str:
        padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
        return f"| {' | '.join(padded)} |\n"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|\n"
    return line(header) + rule + "".join(map(line, cells))
