"""`report.html`: one page that needs no other file and asks nothing of the network.

Curves by Bokeh, whose script it carries; rollouts as compressed texts that its own script unpacks
when a step is looked at. What it shows is a run directory as it stands, finished or not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rl.base.files import replace_file
from rl.report.curves import (
    CHARTS,
    Chart,
    Metrics,
    Stack,
    reasons,
    recipe_charts,
    step_times,
    values,
    with_ends,
)
from rl.report.figures import duration, facts, final_table, status, tiles
from rl.report.plots import draw, library
from rl.report.record import RunRecord, read_record
from rl.report.sources import SOURCES, PackedRollouts
from rl.report.steps import PackedStep
from rl.run.directory import RunDirectory

_HERE = Path(__file__).parent


class Report:
    """The report of one run directory; rollouts that it has packed once are kept."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        self._packed = PackedRollouts(directory)

    def write(self, target: Path | None = None, *, live: bool = False) -> Path:
        """Write the page in one piece, to `report.html` in the run directory if not told otherwise.

        `live` says that the run goes on. Raises UserError where there is no run to show.
        """
        record = read_record(self._dir)
        sources = self._packed.update(record.config, record.last_step)
        target = target or RunDirectory(self._dir).report
        replace_file(target, render(record, sources, live=live))
        return target


def render(
    record: RunRecord, sources: Mapping[str, Sequence[PackedStep]], *, live: bool = False
) -> str:
    """The page as a text."""
    metrics = with_ends(record.metrics, record.summary)
    known = (_with_values(chart, metrics) for chart in (*CHARTS, *recipe_charts(metrics)))
    charts = [chart for chart in known if chart.curves]
    times = step_times(metrics)
    stacks = [stack for stack in (reasons(metrics), times) if stack is not None]
    plots = draw(metrics, charts, stacks)
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html").render(
        title=_title(record),
        status=status(record, live=live),
        facts=facts(record),
        digest=record.digest,
        live=live,
        tiles=tiles(record),
        table=final_table(record.summary),
        charts=charts,
        stacks=stacks,
        places={title: Markup(place) for title, place in plots.places.items()},
        times=times,
        time_parts=_shares(times) if times else [],
        config=record.config_text,
        css=_ours("page.css"),
        page_js=_ours("page.js"),
        matrices_js=_ours("matrices.js"),
        rollouts_js=_ours("rollouts.js"),
        library=Markup(library()),
        plots_script=Markup(plots.script),
        data=_script_json(_data(metrics, charts, stacks, sources)),
        left_out=_left_out(sources),
        blobs=_blobs(sources),
    )


def _title(record: RunRecord) -> str:
    names = [record.config.get(key) for key in ("experiment", "name")]
    return " / ".join(map(str, names)) if all(names) else record.directory.name


def _ours(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _with_values(chart: Chart, metrics: Metrics) -> Chart:
    """The chart with those of its curves that the run has."""
    curves = tuple(curve for curve in chart.curves if values(metrics, curve.metric))
    return replace(chart, curves=curves)


def _shares(times: Stack) -> list[dict[str, Any]]:
    seconds = {label: sum(column) for label, _, column in times.parts}
    whole = sum(seconds.values()) or 1.0
    return [
        {
            "name": label,
            "colour": colour,
            "seconds": round(seconds[label], 3),
            "share": f"{seconds[label] / whole:.0%}",
            "text": duration(seconds[label]),
        }
        for label, colour, _ in times.parts
    ]


def _data(
    metrics: Metrics,
    charts: Sequence[Chart],
    stacks: Sequence[Stack],
    sources: Mapping[str, Sequence[PackedStep]],
) -> dict[str, Any]:
    """What the page's scripts read: the points of each curve, and which steps have rollouts."""
    curves = {
        curve.metric: values(metrics, curve.metric) for chart in charts for curve in chart.curves
    }
    for stack in stacks:
        for label, _, column in stack.parts:
            curves[f"{stack.title}/{label}"] = list(zip(stack.steps, column, strict=True))
    index = {
        source.folder: {
            "label": source.label,
            "steps": [
                {
                    "step": packed.step,
                    "rows": packed.num_rows,
                    "shown": packed.num_shown,
                    "rewards": packed.rewards,
                    "passed": packed.pass_rate,
                }
                for packed in sources[source.folder]
            ],
        }
        for source in SOURCES
        if source.folder in sources
    }
    return {"written": round(time.time()), "curves": curves, "sources": index}


def _left_out(sources: Mapping[str, Sequence[PackedStep]]) -> str:
    """Which completions the page does not show, and by what rule; empty where it shows all."""
    packed = [step for steps in sources.values() for step in steps]
    num_shown, num_rows = sum(step.num_shown for step in packed), sum(s.num_rows for s in packed)
    if num_shown == num_rows:
        return ""
    return (
        f"{num_shown:,} of {num_rows:,} completions are shown, so that the page stays below 50 MB: "
        "of each step as many as its share holds, taken in one order of problems, the same at "
        "every step. The figures of a step are of all its completions, and the rollout files have "
        "them all."
    )


def _script_json(value: object) -> Markup:
    """JSON that can stand inside a script element: no `<` of a text may end it."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))


def _blobs(sources: Mapping[str, Sequence[PackedStep]]) -> Iterator[tuple[str, Markup]]:
    for folder, steps in sources.items():
        for packed in steps:
            yield f"{folder}-{packed.step}", Markup(packed.data)
