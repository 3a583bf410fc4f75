"""Arms of an ablation side by side: curves over seeds, and whether one is above another.

A difference is claimed of at least five seeds and two points. It is paired over seeds and problems,
and its interval resamples both, a problem in all seeds at once. A figure of which runs do not say
what each problem does to it is paired over seeds alone, and its interval is their range.

Axes: S seeds that both arms have, P held-out problems, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from conf.errors import DataError
from rl.base.jsonlines import read_lines
from rl.run.evaluate import Float64Array
from rl.seeds import derive_seed

MIN_SEEDS = 5
MIN_DIFFERENCE = 0.02
_NUM_RESAMPLES = 2000
_TAILS = (0.025, 0.975)

Curve = Mapping[int, float]
Verdict = Literal["holds", "refuted", "not shown", "too few seeds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRun:
    """One run of an arm: a line of `runs.jsonl`."""

    label: str
    seed: int
    pass_at_1: Curve  # by step
    passed: Mapping[str, float]  # share of right programs by problem, after the last step
    marks: Mapping[str, float]  # other figures of the evaluation after the last step
    # What each problem does to a mark (`rl.run.evaluate.shares_of`), by mark and problem.
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Any])
    sampled_tokens: int | None = None  # for training; None in lines of earlier versions
    optimizer_steps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a figure of one arm is above that of another."""

    figure: str
    num_seeds: int
    mean: float
    low: float
    high: float
    by_problem: bool  # the interval resamples seeds and problems; else it is the range over seeds

    @property
    def verdict(self) -> Verdict:
        """What may be said of "the first is above the second"."""
        if self.num_seeds < MIN_SEEDS:
            return "too few seeds"
        if self.low > 0 and self.mean >= MIN_DIFFERENCE:
            return "holds"
        if self.high < 0 and self.mean <= -MIN_DIFFERENCE:
            return "refuted"
        return "not shown"


def read_runs(path: Path) -> dict[str, list[ArmRun]]:
    """The runs of `runs.jsonl` by label, in order of seeds; of a seed run twice the later one.

    Raises:
        DataError: for a line of an earlier version, which has no problems to compare.
    """
    runs: dict[str, dict[int, ArmRun]] = {}
    for line in read_lines(path):
        if "passed" not in line.fields:
            raise DataError(
                f"{line.place}: passed: is missing, without which arms cannot be compared by "
                "problem; give another output=, or remove the line and run its arm again"
            )
        run = _run(line.fields)
        runs.setdefault(run.label, {})[run.seed] = run
    return {label: [by_seed[s] for s in sorted(by_seed)] for label, by_seed in runs.items()}


def _run(fields: Mapping[str, Any]) -> ArmRun:
    curve = {int(step): float(value) for step, value in fields["pass@1"].items()}
    marks = {int(step): found for step, found in fields["marks"].items()}
    return ArmRun(
        label=fields["label"],
        seed=int(fields["seed"]),
        pass_at_1=curve,
        passed=fields["passed"],
        marks=marks.get(max(curve), {}),
        shares={
            name: dict(zip(fields["passed"], values, strict=True))
            for name, values in fields.get("shares", {}).items()
        },
        sampled_tokens=fields.get("sampled_tokens"),
        optimizer_steps=fields.get("optimizer_steps"),
    )


def differences(ours: Sequence[ArmRun], theirs: Sequence[ArmRun]) -> list[Difference]:
    """Differences of every figure that both arms have at the end, pass@1 first."""
    by_seed = {run.seed: run for run in theirs}
    pairs = [(run, by_seed[run.seed]) for run in ours if run.seed in by_seed]
    if not pairs:
        return []
    both = [run for pair in pairs for run in pair]
    names = [name for name in pairs[0][0].marks if all(name in run.marks for run in both)]
    return [
        _over_problems("pass@1", [(ours.passed, theirs.passed) for ours, theirs in pairs]),
        *(_of_mark(name, pairs) for name in names),
    ]


def _of_mark(name: str, pairs: Sequence[tuple[ArmRun, ArmRun]]) -> Difference:
    if all(name in run.shares for pair in pairs for run in pair):
        shares = [(ours.shares[name], theirs.shares[name]) for ours, theirs in pairs]
        return _over_problems(name, shares)
    gaps_S = [ours.marks[name] - theirs.marks[name] for ours, theirs in pairs]
    return Difference(
        figure=name,
        num_seeds=len(gaps_S),
        mean=float(np.mean(gaps_S)),
        low=min(gaps_S),
        high=max(gaps_S),
        by_problem=False,
    )


Values = Mapping[str, float]  # by problem


def _over_problems(figure: str, pairs: Sequence[tuple[Values, Values]]) -> Difference:
    """The difference of what both have of each problem, a pair for each seed."""
    problems = sorted({p for ours, theirs in pairs for p in ours.keys() & theirs.keys()})
    gaps_SP = np.array(
        [[ours.get(p, np.nan) - theirs.get(p, np.nan) for p in problems] for ours, theirs in pairs]
    )
    low, high = interval(gaps_SP)
    return Difference(
        figure=figure,
        num_seeds=len(pairs),
        mean=float(_means(gaps_SP).mean()),
        low=low,
        high=high,
        by_problem=True,
    )


def interval(gaps_SP: Float64Array) -> tuple[float, float]:
    """95 % interval of the mean over seeds and problems; NaN where a seed lacks a problem.

    Problems are drawn once for all seeds of a resample: what is common to the runs of a problem is
    no new evidence in each of them. Seeds are drawn too, but few of them spread too little, so that
    the interval is nowhere narrower than Student's of the means of seeds.
    """
    (num_seeds, num_problems), there_SP = gaps_SP.shape, ~np.isnan(gaps_SP)
    rng = np.random.default_rng(derive_seed(0, "arms"))
    equal_P = np.full(num_problems, 1 / num_problems)
    times_RP = rng.multinomial(num_problems, equal_P, size=_NUM_RESAMPLES).astype(np.float64)
    chosen_RS = rng.integers(num_seeds, size=(_NUM_RESAMPLES, num_seeds))
    sums_RS, nums_RS = times_RP @ np.nan_to_num(gaps_SP).T, times_RP @ there_SP.T
    drawn_RS = nums_RS > 0
    means_RS = np.divide(sums_RS, nums_RS, out=np.full_like(sums_RS, np.nan), where=drawn_RS)
    resampled_R = _means(np.take_along_axis(means_RS, chosen_RS, axis=1))
    low, high = (float(np.nanquantile(resampled_R, tail)) for tail in _TAILS)
    if num_seeds == 1:
        return low, high
    means_S = _means(gaps_SP)
    mean, spread = float(means_S.mean()), float(means_S.std(ddof=1))
    half = student(num_seeds - 1) * spread / num_seeds**0.5
    return min(low, mean - half), max(high, mean + half)


def _means(values_NM: Float64Array) -> Float64Array:
    """Mean of each row [N], of what is there."""
    return np.array(np.nanmean(values_NM, axis=1), dtype=np.float64)


def student(num_degrees: int) -> float:
    """Quantile of Student's t that 2.5 % exceed (Abramowitz and Stegun, 26.7.5).

    >>> f"{student(4):.2f} {student(9):.2f}"  # exact: 2.78 2.26
    '2.77 2.26'
    """
    z = NormalDist().inv_cdf(_TAILS[1])
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / num_degrees**power for power, term in enumerate(terms))


def curves_table(runs: Mapping[str, Sequence[ArmRun]]) -> str:
    """An arm a row: what its runs cost, and pass@1 at each step; mean and range over seeds."""
    steps = sorted({step for of_arm in runs.values() for run in of_arm for step in run.pass_at_1})
    lines = [
        "| arm | seeds | sampled tokens of a run | optimizer steps | "
        + " | ".join(f"step {step}" for step in steps)
        + " |",
        "|---|---|---|---|" + "---|" * len(steps),
    ]
    for label, of_arm in runs.items():
        cells = [
            _count([run.sampled_tokens for run in of_arm]),
            _count([run.optimizer_steps for run in of_arm]),
        ]
        cells += [
            _cell([run.pass_at_1[step] for run in of_arm if step in run.pass_at_1])
            for step in steps
        ]
        lines.append(f"| {label} | {len(of_arm)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _count(values: Sequence[int | None]) -> str:
    """Mean and range of whole numbers; the mean alone where all are equal.

    >>> _count([7, 7]), _count([1000, 2000]), _count([7, None])
    ('7', '1,500 (1,000 to 2,000)', '-')
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "-"
    mean = f"{np.mean(known):,.0f}"
    return mean if min(known) == max(known) else f"{mean} ({min(known):,} to {max(known):,})"


def verdicts_table(runs: Mapping[str, Sequence[ArmRun]], beside: str) -> str:
    """Every other arm beside this one after the last step, a figure a row."""
    lines = [
        f"| arm, beside {beside} | figure | seeds | difference "
        "| 95 % interval (*range*: of seeds alone) | above it |",
        "|---|---|---|---|---|---|",
    ]
    for label, of_arm in runs.items():
        if label == beside:
            continue
        for d in differences(of_arm, runs[beside]):
            ends = f"{d.low:+.3f} to {d.high:+.3f}{'' if d.by_problem else ' *range*'}"
            cells = (label, d.figure, d.num_seeds, f"{d.mean:+.3f}", ends, d.verdict)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
