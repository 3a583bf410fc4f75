"""Curves of several arms over RL steps: the mean over seeds, and each seed beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Curve = Mapping[int, float]  # RL step -> value


def mean_curve(curves: Sequence[Curve]) -> dict[int, float]:
    """The mean over the curves that have a value, at each step that any of them has.

    >>> mean_curve([{0: 1.0, 5: 2.0}, {0: 3.0}])
    {0: 2.0, 5: 2.0}
    """
    steps = sorted({step for curve in curves for step in curve})
    values = {step: [curve[step] for curve in curves if step in curve] for step in steps}
    return {step: sum(found) / len(found) for step, found in values.items()}


def plot_arms(axes: Any, arms: Mapping[str, Sequence[Curve]], what: str) -> None:  # noqa: ANN401 - matplotlib is imported late
    """Draw each arm in a colour of its own: its mean with markers, its seeds thin."""
    for label, curves in arms.items():
        mean = mean_curve(curves)
        (line,) = axes.plot(list(mean), list(mean.values()), marker="o", ms=3, label=label)
        for curve in curves:
            axes.plot(list(curve), list(curve.values()), color=line.get_color(), alpha=0.25)
    axes.set_xlabel("RL step")
    axes.set_ylabel(what)
    axes.grid(alpha=0.3)
    if arms:
        axes.legend(fontsize=8)
