"""What `launch/best_of_n.py` leaves: figures as JSON, one table as Markdown, one plot."""

# matplotlib is typed in parts; nothing of its leaves this file.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Plot

from reward.select.best_of_n import (
    METHODS,
    Evidence,
    SelectionPlan,
    accuracy_figures,
    curves,
    figures_of_tests,
    latency_figures,
)
from reward.select.verdicts import Verdicts, figures_of_verdicts
from rl.base.console import Console
from rl.base.files import replace_file, replace_json
from rl.base.versions import installed_versions
from rl.run.evaluation_store import SampleRow, Settings

# Where a method stands in the plot; colours are safe for the colour-blind (Okabe and Ito).
_STYLES: Mapping[str, tuple[str, str, str]] = {
    "own_tests": ("#000000", "--", "o"),  # the oracle
    "reward_model": ("#D55E00", "-", "o"),
    "judge": ("#CC79A7", "-", "P"),
    "staged": ("#E69F00", "-", "s"),
    "codet": ("#0072B2", "-", "^"),
    "generated_tests": ("#56B4E9", "-", "v"),
    "mbr_exec": ("#009E73", "-", "D"),
    "random": ("#999999", ":", ""),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What a language model said of the programs of all problems."""

    settings: Settings  # whatever it depends on, but for problems and programs
    verdicts: Mapping[str, Verdicts]  # by problem id


def write_report(  # noqa: PLR0913 - what was found out by whom
    selection: SelectionPlan,
    programs: Mapping[str, Sequence[SampleRow]],
    evidence: Mapping[str, Evidence],
    output: Path,
    console: Console,
    *,
    judged: Judged | None = None,
) -> None:
    """Compute the figures, write `best_of_n.{json,md,png}` and show the table."""
    result = compare(selection, programs, evidence, console, judged)
    replace_json(output / "best_of_n.json", result)
    replace_file(output / "best_of_n.md", markdown(result))
    draw(result, output / "best_of_n.png")
    rows = table_rows(result)
    console.table(_title(result), rows[1:], rows[0])
    console.say("")
    for line in _remarks(result):
        console.say(line)
    console.say("")
    console.say(f"figures   {output / 'best_of_n.json'}")
    console.say(f"table     {output / 'best_of_n.md'}")
    console.say(f"plot      {output / 'best_of_n.png'}")


def compare(
    selection: SelectionPlan,
    programs: Mapping[str, Sequence[SampleRow]],
    evidence: Mapping[str, Evidence],
    console: Console,
    judged: Judged | None = None,
) -> dict[str, Any]:
    """All figures, as `best_of_n.json` has them."""
    in_order = [evidence[prompt.id] for prompt in selection.problems]
    verdicts = [judged and judged.verdicts[prompt.id] for prompt in selection.problems]
    correct = [
        np.array([row.outcome.passed for row in programs[prompt.id]])
        for prompt in selection.problems
    ]
    curves_P: list[dict[str, list[float]]] = []
    with console.steps(len(in_order), what="curves"):
        for found, correct_N, said in zip(in_order, correct, verdicts, strict=True):
            curves_P.append(curves(found, correct_N, selection.figures, said))
            console.advance()
    first = [*zip(in_order, verdicts, strict=True)][: selection.latency_problems]
    timed = [
        found.seconds | ((said and said.seconds) or {})
        for found, said in first
        if found.seconds is not None
    ]
    accuracies, latencies = accuracy_figures(curves_P, selection.figures), latency_figures(timed)
    result = {
        "benchmark": selection.benchmark,
        "num_problems": len(in_order),
        "num_samples": selection.figures.sizes[-1],
        "num_tests": selection.sampling.group_size,
        "sizes": list(selection.figures.sizes),
        "num_timed": len(timed),
        "methods": {name: found | latencies[name] for name, found in accuracies.items()},
        "generated_tests": figures_of_tests(in_order, correct),
        "settings": dict(selection.settings),
        "versions": installed_versions(),
    }
    if judged is not None:
        figures = figures_of_verdicts([*judged.verdicts.values()])
        result["judge"] = figures | {"settings": dict(judged.settings)}
    return result


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The one table: a header, then a row for each method."""
    header = (
        "selection",
        f"@{result['num_samples']}",
        "95 %",
        "p50 ms",
        "p95 ms",
        "given",
        "to RM",
    )
    rows: list[tuple[str, ...]] = [header]
    for name, found in result["methods"].items():
        label, stages = METHODS[name]
        low, high = found["interval"]
        given, ratio = found["latency_without_generation_s"]["p50"], found["slower_than_rm"]["p50"]
        times = [*found["latency_s"].values(), given]
        rows.append(
            (
                label,
                f"{found['accuracy']:.3f}",
                f"{low:.3f}-{high:.3f}",
                *(f"{1000 * time:.0f}" if stages else "-" for time in times),
                f"{ratio:.1f}x" if stages and ratio is not None else "-",
            )
        )
    return rows


def markdown(result: Mapping[str, Any]) -> str:
    """The table and what it says of, as Markdown."""
    header, *rows = table_rows(result)
    lines = [f"## {_title(result)}", "", _line(header), _line(["---"] * len(header))]
    lines += [_line(row) for row in rows]
    return "\n".join([*lines, "", *(f"- {remark}" for remark in _remarks(result)), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _title(result: Mapping[str, Any]) -> str:
    return (
        f"Best of {result['num_samples']}: {result['benchmark']}, {result['num_problems']} problems"
    )


def _remarks(result: Mapping[str, Any]) -> list[str]:
    tests, gap = result["generated_tests"], result["methods"]["reward_model"]
    right = "unknown" if tests["right"] is None else f"{tests['right']:.0%}"
    low, high = gap["below_own_tests_interval"]
    remarks = [
        f"ms: of one selection, {result['num_timed']} problems each alone. given: p50 without the "
        "time in which tests are decoded. to RM: p50 over that of the reward model.",
        "own tests: what the problem's own tests choose, which no selector can beat. The reward "
        f"model is {gap['below_own_tests']:.3f} below ({low:.3f} to {high:.3f}).",
        f"Generated tests: {tests['read']} of {tests['asked']} could be read, {right} of them are "
        f"right, {tests['tokens_per_test']:.0f} tokens each.",
    ]
    return [*remarks, *_of_judge(result["judge"])] if "judge" in result else remarks


def _of_judge(judge: Mapping[str, Any]) -> list[str]:
    settings = judge["settings"]
    return [
        f"judge: {settings['model']}, {settings['read_out']}. {judge['requests_per_choice']:.1f} "
        f"answers for a selection; {judge['unread']} of {judge['requests']} could not be read, and "
        f"{judge['undecided']} of {judge['choices']} choices fell to the first among equals."
    ]


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy over the number of samples, one line for each method."""
    figure = Plot(figsize=(8, 4.8))
    axes = figure.subplots()
    drawn = {name: style for name, style in _STYLES.items() if name in result["methods"]}
    for name, (color, line, marker) in drawn.items():
        found = result["methods"][name]
        sizes = [int(size) for size in found["curve"]]
        values = list(found["curve"].values())
        label = f"{METHODS[name][0]}  {values[-1]:.3f}"
        axes.plot(sizes, values, line, color=color, marker=marker, markersize=4, label=label)
        if name == "reward_model":
            low, high = zip(*found["curve_intervals"].values(), strict=True)
            axes.fill_between(sizes, low, high, color=color, alpha=0.1, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(result["sizes"], [str(size) for size in result["sizes"]])
    axes.minorticks_off()
    axes.set_xlabel("samples per problem")
    axes.set_ylabel("accuracy of the chosen program")
    axes.set_title(_title(result), fontsize=11, loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        fontsize=8,
        title="shaded: 95 % interval",
        title_fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
