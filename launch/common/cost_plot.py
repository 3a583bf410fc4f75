"""The predicted step over what a run can choose: group size, length, engines, shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actors.plan.cost.case import Case
from actors.plan.cost.step import FIRST_GROUPS

_PHASES = {  # of the step, from below
    "rollout": ("rollout_s", "C0"),
    "scores after it": ("tail_s", "C1"),
    "driver": ("driver_s", "C7"),
    "update": ("update_s", "C2"),
    "publication": ("publish_s", "C3"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variations:
    """A run with other groups and lengths, by these."""

    groups: Mapping[int, Case]
    lengths: Mapping[int, Case]


def draw(case: Case, variations: Variations, target: Path) -> None:
    """Write four panels."""
    import matplotlib  # noqa: PLC0415 - after the arguments are good

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, panels = pyplot.subplots(2, 2, figsize=(10, 6.4))
    (groups, lengths), (engines, shards) = panels
    layout, work = case.layout, case.work
    more = {n: replace(case, layout=replace(layout, engines=n)) for n in _doubled(layout.engines)}
    _stack(groups, variations.groups, work.group_size, "completions of a problem")
    _stack(lengths, variations.lengths, work.lengths.answer_tokens, "tokens of a completion, mean")
    _stack(engines, more, layout.engines, "rollout engines")
    _hidden(shards, case)
    handles, labels = groups.get_legend_handles_labels()
    place = {"loc": "upper center", "ncols": len(labels), "bbox_to_anchor": (0.5, 1.0)}
    figure.legend(handles, labels, fontsize=9, frameon=False, **place)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


def _doubled(own: int) -> Sequence[int]:
    """Numbers of actors around the run's own."""
    return sorted({1, 2, own, 2 * own, 4 * own, 8 * own})


def _stack(axes: Any, cases: Mapping[int, Case], own: float, label: str) -> None:  # noqa: ANN401 - matplotlib is imported late
    """Phases above each other; the dashed line is the step where sampling and learning overlap."""
    costs = [case.cost(replace(case.layout, staleness=0)) for case in cases.values()]
    ahead = [case.cost(replace(case.layout, staleness=1)).step_s for case in cases.values()]
    columns = [[getattr(cost, name) for cost in costs] for name, _ in _PHASES.values()]
    colours = [colour for _, colour in _PHASES.values()]
    axes.stackplot(list(cases), *columns, labels=list(_PHASES), colors=colours, alpha=0.75)
    axes.plot(list(cases), ahead, "k--", linewidth=1.4, label="step, max_staleness=1")
    _dress(axes, cases, own, label, "seconds of a step")
    axes.set_ylim(0, None)


def _hidden(axes: Any, case: Case) -> None:  # noqa: ANN401 - matplotlib is imported late
    """Work of the busiest shard, beside what the rollout hides of it."""
    numbers = _doubled(case.layout.shards)
    work = [case.cost(replace(case.layout, shards=number)).score_s for number in numbers]
    hides = (1 - FIRST_GROUPS) * case.cost().rollout_s
    axes.plot(numbers, work, color="C1", marker="o", markersize=4)
    axes.axhline(hides, color="C0", linestyle="-.", linewidth=1.2)
    axes.annotate(
        "hidden behind the rollout below this", (1, hides), (4, -13), textcoords="offset points",
        fontsize=8, color="C0",
    )  # fmt: skip
    _dress(axes, numbers, case.layout.shards, "reward shards", "seconds of scoring, busiest shard")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(min(work) / 2, 2 * max(*work, hides))


def _dress(
    axes: Any,  # noqa: ANN401 - matplotlib is imported late
    ticks: Mapping[int, Case] | Sequence[int],
    own: float,
    x: str,
    y: str,
) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(ticks), [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(0.97 * min(ticks), 1.03 * max(ticks))
    axes.axvline(own, color="k", linestyle=":", linewidth=1.2, label="the run as it is")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
