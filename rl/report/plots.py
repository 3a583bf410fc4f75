"""The curves of a report as Bokeh plots: one x axis for all of them, quiet in light and dark."""

# Bokeh's models are typed for its own checks; nothing of it leaves this file but two texts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bokeh.embed import components
from bokeh.events import DoubleTap, MouseLeave, MouseMove, Tap
from bokeh.model import Model
from bokeh.models import BasicTicker, CrosshairTool, CustomJS, DataRange1d, Range1d, Span
from bokeh.plotting import figure
from bokeh.resources import Resources

from rl.report.curves import GREY, RED, Chart, Metrics, Stack, values

HEIGHT = 170  # pixels
_INK = "#868e99"  # readable on white and on black
_LEAST = 1e-6  # of an axis: what varies by less is a level line


@dataclass(frozen=True, slots=True, kw_only=True)
class Plots:
    """What a page embeds: a script, and the place of each plot."""

    script: str
    places: dict[str, str]  # title -> an element that the script fills


def library() -> str:
    """The script that draws the plots, without any that fetches something."""
    return "".join(f"<script>{text}</script>" for text in _inline().js_raw)


def _inline() -> Resources:
    return Resources(mode="inline", components=["bokeh"])


def draw(metrics: Metrics, charts: Sequence[Chart], stacks: Sequence[Stack]) -> Plots:
    """Draw the charts and stacks; each needs a curve with values."""
    first, last = int(metrics[0]["step"]), int(metrics[-1]["step"])
    first, last = first - 0.5, last + 0.5
    steps = Range1d(start=first, end=last, bounds=(first, last))
    crosshair = Span(dimension="height", line_color=GREY, line_alpha=0.6)
    alarms = [step for step, fired in values(metrics, "alarm/fired") if fired]
    models: dict[str, Model] = {}
    for chart in charts:
        models[chart.title] = plot = _blank(steps, crosshair)
        _draw_chart(plot, chart, metrics)
        if chart.share:
            plot.y_range = Range1d(start=0, end=1.02)
        elif chart.from_zero:
            plot.y_range = DataRange1d(start=0, range_padding=0.08, min_interval=_LEAST)
        for step in alarms:
            plot.add_layout(_alarm(step))
    for stack in stacks:
        models[stack.title] = plot = _blank(steps, crosshair)
        _draw_stack(plot, stack)
    script, places = components(models, wrap_script=False)
    return Plots(script=script, places=dict(places))


def _blank(steps: Range1d, crosshair: Span) -> figure:
    plot = figure(
        height=HEIGHT,
        sizing_mode="stretch_width",
        x_range=steps,
        tools="xbox_zoom",
        toolbar_location=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        min_border_left=46,
        min_border_right=6,
    )
    plot.add_tools(CrosshairTool(overlay=crosshair))
    for axis in plot.axis:
        axis.major_label_text_color = _INK
        axis.major_label_text_font = "system-ui, sans-serif"
        axis.axis_line_color = axis.minor_tick_line_color = None
        axis.major_tick_line_color = None
    plot.xgrid.grid_line_color = None
    plot.ygrid.grid_line_color, plot.ygrid.grid_line_alpha = _INK, 0.2
    plot.yaxis[0].ticker = BasicTicker(desired_num_ticks=4)
    if isinstance(plot.y_range, DataRange1d):
        plot.y_range.range_padding = 0.08
        plot.y_range.min_interval = _LEAST
    # `report` is what page.js offers to the plots.
    plot.js_on_event(MouseMove, CustomJS(code="report.readAt(cb_obj.x)"))
    plot.js_on_event(MouseLeave, CustomJS(code="report.readAt(null)"))
    plot.js_on_event(Tap, CustomJS(code="report.openStep(cb_obj.x)"))
    whole = {"range": steps, "start": steps.start, "end": steps.end}
    reset = "range.setv({start: start, end: end})"
    plot.js_on_event(DoubleTap, CustomJS(args=whole, code=reset))
    return plot


def _draw_chart(plot: figure, chart: Chart, metrics: Metrics) -> None:
    for low, high in chart.bands:
        lows, highs = values(metrics, low), values(metrics, high)
        x = [step for step, _ in lows]
        plot.varea(
            x, [v for _, v in lows], [v for _, v in highs], fill_color=chart.curves[0].colour,
            fill_alpha=0.18,
        )  # fmt: skip
    for curve in chart.curves:
        seen = values(metrics, curve.metric)
        x, y = [step for step, _ in seen], [value for _, value in seen]
        plot.line(x, y, line_color=curve.colour, line_width=1.8)
        if curve.sparse or len(seen) == 1:
            plot.scatter(x, y, size=5, fill_color=curve.colour, line_color=None)


def _draw_stack(plot: figure, stack: Stack) -> None:
    data: dict[str, Sequence[float]] = {"step": stack.steps}
    data |= {label: column for label, _, column in stack.parts}
    plot.vbar_stack(
        [label for label, *_ in stack.parts],
        x="step",
        width=1.0,
        color=[colour for _, colour, _ in stack.parts],
        line_color=[colour for _, colour, _ in stack.parts],  # or gaps would show between bars
        line_width=0.5,
        source=data,
    )
    plot.y_range = DataRange1d(start=0, range_padding=0.02)


def _alarm(step: int) -> Span:
    return Span(location=step, dimension="height", line_color=RED, line_dash="dashed")
