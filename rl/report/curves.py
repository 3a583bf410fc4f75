"""Which curves a report shows: chart by chart, the metrics and what they tell together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rl.metrics import about, is_own
from rl.run.summary import RunSummary
from rl.types import Reason

Metrics = Sequence[Mapping[str, float]]

BLUE, ORANGE, GREEN, RED = "#4a8fe7", "#e8853d", "#3fa66b", "#d9534f"
PURPLE, TEAL, GREY, YELLOW = "#9a7fd1", "#35a3ad", "#8b949e", "#d4a72c"


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric in a chart."""

    metric: str
    label: str
    colour: str
    sparse: bool = False  # measured at some steps only: drawn with a mark at each


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves that share an axis."""

    title: str
    about: str
    curves: tuple[Curve, ...]
    unit: str = ""
    share: bool = False  # the axis is 0 to 1
    from_zero: bool = False  # the axis begins at 0
    bands: tuple[tuple[str, str], ...] = ()  # lower and upper metric; coloured as the 1st curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Parts of a whole, step by step."""

    title: str
    about: str
    unit: str
    steps: tuple[int, ...]
    parts: tuple[tuple[str, str, tuple[float, ...]], ...]  # label, colour, a value for each step


CHARTS = (
    Chart(
        title="Held-out pass@1",
        about="executed, never part of a reward; dashed: the alarm fired",
        curves=(
            Curve("probe/pass@1", "probe", BLUE, sparse=True),
            Curve("eval/pass@1", "test split", GREEN, sparse=True),
        ),
        share=True,
    ),
    Chart(
        title="Reward",
        about="mean over the programs of a step, and over those of the probe",
        curves=(
            Curve("reward/mean", "training", BLUE),
            Curve("probe/reward", "probe", ORANGE, sparse=True),
        ),
    ),
    Chart(
        title="Valid code",
        about="completions with code to judge; where tests judge, those that pass",
        curves=(
            Curve("reward/valid_rate", "valid", BLUE),
            Curve("reward/exec_pass_rate", "pass", GREEN),
        ),
        share=True,
    ),
    Chart(
        title="Reward model against execution",
        about="probe: pairs of a right and a wrong program that the scores order right (AUC)",
        curves=(Curve("rm/exec_agreement", "agreement", BLUE, sparse=True),),
        share=True,
    ),
    Chart(
        title="Raw scores",
        about="of the reward model: median, middle half and middle nine tenths",
        curves=(Curve("rm/score_p50", "median", BLUE),),
        unit="logit",
        bands=(("rm/score_p05", "rm/score_p95"), ("rm/score_p25", "rm/score_p75")),
    ),
    Chart(
        title="Ties",
        about="groups and pairs of programs that the reward cannot tell apart",
        curves=(
            Curve("rm/tie_rate", "groups", BLUE),
            Curve("rm/pair_tie_rate", "pairs", ORANGE),
        ),
        share=True,
    ),
    Chart(
        title="KL",
        about="k3 estimates: from the initial policy, and of one update",
        curves=(
            Curve("policy/ref_kl", "to the initial policy", BLUE),
            Curve("policy/approx_kl", "of the update", ORANGE),
        ),
        unit="nats",
        from_zero=True,
    ),
    Chart(
        title="Clipping",
        about="tokens whose ratio was clipped, or importance weight capped",
        curves=(
            Curve("policy/clip_frac", "clipped", BLUE),
            Curve("policy/tis_capped_frac", "capped", ORANGE),
        ),
        from_zero=True,
    ),
    Chart(
        title="Staleness",
        about="versions that the sampling policy lags behind the learner",
        curves=(Curve("rollout/staleness", "mean lag", BLUE),),
        unit="versions",
        from_zero=True,
    ),
    Chart(
        title="Mismatch",
        about="KL between the log-probs of the rollout engine and of the trainer",
        curves=(Curve("rollout/mismatch_kl", "mismatch", BLUE),),
        unit="nats",
        from_zero=True,
    ),
    Chart(
        title="Entropy",
        about="mean entropy of the policy at the sampled tokens",
        curves=(Curve("policy/entropy", "entropy", BLUE),),
        unit="nats",
    ),
    Chart(
        title="Completion length",
        about="mean over the completions of a step",
        curves=(Curve("rollout/completion_tokens", "tokens", BLUE),),
        unit="tokens",
    ),
    Chart(
        title="Truncated",
        about="completions that ran out of budget",
        curves=(Curve("rollout/truncated_rate", "truncated", BLUE),),
        from_zero=True,
    ),
    Chart(
        title="Gradient norm",
        about="before clipping",
        curves=(Curve("policy/grad_norm", "norm", BLUE),),
        from_zero=True,
    ),
)

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, TEAL, RED, YELLOW, GREY)
_REASON_COLOURS = (GREEN, RED, ORANGE, YELLOW, PURPLE, TEAL, BLUE, "#b07aa1", GREY)


def recipe_charts(metrics: Metrics) -> list[Chart]:
    """A chart for each kind of answer and unit of what the recipe says of a run.

    What it says of the held-out problems stands apart, and so does each metric of a recipe from
    outside this tree, whose unit nobody knows.
    """
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys(name for line in metrics for name in line if _is_of_recipe(name)):
        group, *rest = name.split("/")
        kind = {"task": rest[0], "eval": "held-out problems"}.get(group, name)
        kinds.setdefault((kind, about(name).unit), []).append(name)
    return [_recipe_chart(kind, unit, names, metrics) for (kind, unit), names in kinds.items()]


def _is_of_recipe(name: str) -> bool:
    held_out = name.startswith("eval/") and not name.endswith("pass@1")
    return held_out or is_own(name) or name.startswith("task/")


def _recipe_chart(kind: str, unit: str, names: Sequence[str], metrics: Metrics) -> Chart:
    labels = [name.rpartition("/")[2].replace("_", " ") for name in names]
    lowest = min(value for name in names for _, value in values(metrics, name) or [(0, 0.0)])
    return Chart(
        title=f"Recipe, {kind}" + ("" if unit in ("", "share") else f": {unit}"),
        about=about(names[0]).meaning if len(names) == 1 else "docs/metrics.md says what they mean",
        curves=tuple(
            Curve(name, label, _COLOURS[place % len(_COLOURS)], sparse=name.startswith("eval/"))
            for place, (name, label) in enumerate(zip(names, labels, strict=True))
        ),
        unit="share" if unit == "share" else "",  # another stands in the title
        share=unit == "share" and lowest >= 0,
    )


def ends(summary: RunSummary | None) -> tuple[float | None, float | None]:
    """The test split's pass@1 before and after."""
    return (None, None) if summary is None else (summary.base.pass_at_1, summary.final.pass_at_1)


def with_ends(metrics: Metrics, summary: RunSummary | None) -> Metrics:
    """The metrics with figures of the test split at both ends, which only the summary has."""
    base, final = ends(summary)
    if summary is None or base is None or final is None:
        return metrics
    *before, last = metrics
    first = {"step": 0, "eval/pass@1": base, **summary.base.marks}
    return [first, *before, {**last, "eval/pass@1": final, **summary.final.marks}]


def values(metrics: Metrics, name: str) -> list[tuple[int, float]]:
    """The steps that have a finite value of this metric, with it."""
    return [
        (int(line["step"]), line[name])
        for line in metrics
        if name in line and math.isfinite(line[name])
    ]


def reasons(metrics: Metrics) -> Stack | None:
    """Shares of the reasons of extraction that occur; None where there is one reason only."""
    judged = [line for line in metrics if "reward/reason/ok" in line]
    steps = tuple(int(line["step"]) for line in judged)
    parts: list[tuple[str, str, tuple[float, ...]]] = []
    for reason, colour in zip(Reason, _REASON_COLOURS, strict=True):
        shares = tuple(line.get(f"reward/reason/{reason.value}", 0.0) for line in judged)
        if any(shares):
            parts.append((reason.value, colour, shares))
    if len(parts) < 2:
        return None
    return Stack(
        title="Reasons of extraction",
        about="what became of the completions; only ok reaches the judge",
        unit="share",
        steps=steps,
        parts=tuple(parts),
    )


def step_times(metrics: Metrics) -> Stack | None:
    """Where the seconds of each step went; None where no step has its time.

    Where rollouts overlap training, their time is hidden behind the update, and what the learner
    waited for them is counted instead.
    """
    timed = [line for line in metrics if "time/step_s" in line]
    if not timed:
        return None
    in_turn = ("rollout", BLUE), ("score", PURPLE), ("update", ORANGE), ("publish", TEAL)
    names = [f"time/{part}_s" for part, _ in in_turn]
    in_all = sum(line.get(name, 0.0) for line in timed for name in names)
    overlaps = in_all > 1.02 * sum(line["time/step_s"] for line in timed)
    parts = (("wait", BLUE), *in_turn[2:]) if overlaps else in_turn
    columns = [
        (part, colour, tuple(line.get(f"time/{part}_s", 0.0) for line in timed))
        for part, colour in parts
    ]
    spent = [sum(row) for row in zip(*(column for *_, column in columns), strict=True)]
    other = tuple(
        max(0.0, line["time/step_s"] - known) for line, known in zip(timed, spent, strict=True)
    )
    probe = tuple(line.get("time/probe_s", 0.0) for line in timed)
    saving = tuple(line.get("time/checkpoint_s", 0.0) for line in timed)
    columns += [("other", GREY, other), ("probe", GREEN, probe), ("checkpoint", YELLOW, saving)]
    return Stack(
        title="Step time",
        about=(
            "rollouts overlap training here: what the learner waited for them is shown"
            if overlaps
            else "the stages of a step in turn; score is what was not hidden behind the rollout"
        ),
        unit="s",
        steps=tuple(int(line["step"]) for line in timed),
        parts=tuple(column for column in columns if any(column[2])),
    )
