"""Arms of an ablation side by side: curves over seeds, and whether one is above another.

A difference is claimed of at least five seeds and two points. That of pass@1 is paired over seeds
and problems, and its interval resamples both, a problem in all seeds at once; that of another
figure is paired over seeds, and its interval is their range.

Axes: S seeds that both arms have, P held-out problems, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a figure of one arm is above that of another."""

    figure: str
    num_seeds: int
    mean: float
    low: float
    high: float

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
    )


def differences(ours: Sequence[ArmRun], theirs: Sequence[ArmRun]) -> list[Difference]:
    """Differences of every figure that both arms have at the end, pass@1 first."""
    by_seed = {run.seed: run for run in theirs}
    pairs = [(run, by_seed[run.seed]) for run in ours if run.seed in by_seed]
    if not pairs:
        return []
    both = [run for pair in pairs for run in pair]
    names = [name for name in pairs[0][0].marks if all(name in run.marks for run in both)]
    return [_of_pass_at_1(pairs), *(_of_mark(name, pairs) for name in names)]


def _of_pass_at_1(pairs: Sequence[tuple[ArmRun, ArmRun]]) -> Difference:
    shares = [(ours.passed, theirs.passed) for ours, theirs in pairs]
    problems = sorted({p for ours, theirs in shares for p in ours.keys() & theirs.keys()})
    gaps_SP = np.array(
        [[ours.get(p, np.nan) - theirs.get(p, np.nan) for p in problems] for ours, theirs in shares]
    )
    low, high = interval(gaps_SP)
    mean = float(_means(gaps_SP).mean())
    return Difference(figure="pass@1", num_seeds=len(pairs), mean=mean, low=low, high=high)


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


def _of_mark(name: str, pairs: Sequence[tuple[ArmRun, ArmRun]]) -> Difference:
    gaps_S = [ours.marks[name] - theirs.marks[name] for ours, theirs in pairs]
    return Difference(
        figure=name,
        num_seeds=len(gaps_S),
        mean=float(np.mean(gaps_S)),
        low=min(gaps_S),
        high=max(gaps_S),
    )


def curves_table(runs: Mapping[str, Sequence[ArmRun]]) -> str:
    """Mean and range of pass@1 over seeds at each step, an arm a row."""
    steps = sorted({step for of_arm in runs.values() for run in of_arm for step in run.pass_at_1})
    lines = [
        "| arm | seeds | " + " | ".join(f"step {step}" for step in steps) + " |",
        "|---|---|" + "---|" * len(steps),
    ]
    for label, of_arm in runs.items():
        cells = [
            _cell([run.pass_at_1[step] for run in of_arm if step in run.pass_at_1])
            for step in steps
        ]
        lines.append(f"| {label} | {len(of_arm)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def verdicts_table(runs: Mapping[str, Sequence[ArmRun]], beside: str) -> str:
    """Every other arm beside this one after the last step, a figure a row."""
    lines = [
        f"| arm, beside {beside} | figure | seeds | difference | interval | above it |",
        "|---|---|---|---|---|---|",
    ]
    for label, of_arm in runs.items():
        if label == beside:
            continue
        for d in differences(of_arm, runs[beside]):
            interval = f"{d.low:+.3f} to {d.high:+.3f}"
            cells = (label, d.figure, d.num_seeds, f"{d.mean:+.3f}", interval, d.verdict)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
