"""Figures that judge a reward model: pairs, calibration, lists, attacks. No engine here.

Axes: P problems, N programs or pairs, K figures. Intervals are 95 %, by resampling problems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl.run.evaluate import (
    BoolArray,
    Float64Array,
    IndexArray,
    bootstrap,
    pass_at_k,
    won_pairs,
)

NUM_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number with its interval; `num` says of how many problems, pairs or programs."""

    value: float
    low: float
    high: float
    num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Pairs in which the model is about equally sure of its preference."""

    low: float
    high: float
    num: int
    confidence: float  # mean of sigmoid(|margin|)
    accuracy: float  # share in which the preferred program is the right one; a tie counts half


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFigures:
    """What the pairs say."""

    figures: Mapping[str, Figure]  # accuracy, ties, ece, loss
    by_source: Mapping[str, Figure]  # accuracy, by where the wrong program comes from
    bins: tuple[Bin, ...]


def pair_figures(
    margins_N: Sequence[float], problems: Sequence[str], sources: Sequence[str], seed: int
) -> PairFigures:
    """Return the figures of pairs with margins `score(right) - score(wrong)`.

    Accuracy is the share with a margin above 0; ties are counted apart and are not right. Under
    Bradley-Terry, sigmoid(|margin|) is the probability that the preferred program is right; `ece`
    is the mean gap between it and the accuracy over bins of confidence, `loss` the mean of
    log(1 + exp(-margin)).
    """
    margins = np.array(margins_N, dtype=np.float64)
    problem_of = _numbered(problems)
    confidence, right, place = _calibration(margins)
    losses = np.logaddexp(0, -margins)

    def values(rows: NDArray[np.int64]) -> Float64Array:
        m = margins[rows]
        if not len(m):
            return np.full(4, np.nan)
        ece = _ece(confidence[rows], right[rows], place[rows])
        return np.array([(m > 0).mean(), (m == 0).mean(), ece, losses[rows].mean()])

    figures = _figures(("accuracy", "ties", "ece", "loss"), values, problem_of, seed)
    by_source: dict[str, Figure] = {}
    for source in sorted(set(sources)):
        inside = np.array([s == source for s in sources])
        by_source |= _figures(
            (source,), lambda rows, m=margins[inside]: _share(m[rows] > 0), problem_of[inside], seed
        )
    return PairFigures(figures=figures, by_source=by_source, bins=tuple(_bins(margins)))


def _bins(margins: Float64Array) -> list[Bin]:
    confidence, right, place = _calibration(margins)
    edges = np.linspace(0.5, 1.0, NUM_BINS + 1)
    return [
        Bin(
            low=float(edges[b]),
            high=float(edges[b + 1]),
            num=int((place == b).sum()),
            confidence=float(confidence[place == b].mean()),
            accuracy=float(right[place == b].mean()),
        )
        for b in range(NUM_BINS)
        if (place == b).any()
    ]


def _calibration(margins: Float64Array) -> tuple[Float64Array, Float64Array, NDArray[np.int64]]:
    """Of each pair: the model's confidence, whether it is right, and its bin of confidence."""
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    right = np.where(margins == 0, 0.5, margins > 0).astype(np.float64)
    place = np.clip(((confidence - 0.5) * 2 * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    return confidence, right, place


def _ece(confidence: Float64Array, right: Float64Array, place: NDArray[np.int64]) -> float:
    """Expected calibration error: the gap of each bin, by its share of the pairs."""
    return float(np.abs(np.bincount(place, weights=confidence - right)).sum() / len(place))


# ---------------------------------------------------------------- lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The different programs of one problem."""

    problem: str
    scores: tuple[float, ...]
    pass_rates: tuple[float, ...]  # share of the tests that a program passes
    passed: tuple[bool, ...]  # all of them


def list_figures(lists: Sequence[Listed], ks: Sequence[int], seed: int) -> dict[str, Figure]:
    """Return figures of how a model ranks the programs of each problem.

    `hits@k`: one of the k best-scored programs is right, over problems with right and wrong ones;
    `random@k` is what an order by chance would give. `spearman mean` and `spearman median`: rank
    correlation of score and pass rate, over problems in which both vary. `auc within`: probability
    that a right program scores above a wrong one of the same problem, mean over problems with both;
    `auc pooled`: the same over programs of all problems. Equal scores count half. Without a problem
    that a figure is about, the figure is left out.
    """
    mixed = [row for row in lists if 0 < sum(row.passed) < len(row.passed)]
    per_problem: dict[str, list[float]] = {}
    for k in ks:
        long = [row for row in mixed if len(row.passed) >= k]
        per_problem[f"hits@{k}"] = [hits_at(row.scores, row.passed, k) for row in long]
        per_problem[f"random@{k}"] = [
            pass_at_k(len(row.passed), sum(row.passed), k) for row in long
        ]
    correlations = [spearman(row.scores, row.pass_rates) for row in lists]
    per_problem["spearman mean"] = [value for value in correlations if value is not None]
    per_problem["auc within"] = [auc(np.array(r.scores), np.array(r.passed)) for r in mixed]
    figures = {
        name: _over_problems(np.array(values), np.mean, seed)
        for name, values in per_problem.items()
        if values
    }
    if per_problem["spearman mean"]:
        spread = np.array(per_problem["spearman mean"])
        figures["spearman median"] = _over_problems(spread, np.median, seed)
    pooled = _pooled_auc(lists, seed)
    return figures | ({"auc pooled": pooled} if pooled else {})


def hits_at(scores: Sequence[float], passed: Sequence[bool], k: int) -> float:
    """Probability that a right program is among the k best; equal scores are ordered by chance.

    >>> hits_at([3.0, 1.0, 1.0], [False, True, False], 2)
    0.5
    """
    values, right = np.array(scores), np.array(passed)
    bar = np.sort(values)[-k]
    above, level = values > bar, values == bar
    if right[above].any():
        return 1.0
    return pass_at_k(int(level.sum()), int(right[level].sum()), k - int(above.sum()))


def spearman(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Rank correlation, with mean ranks for equals; None where one side does not vary.

    >>> spearman([1, 2, 3], [0.1, 0.5, 0.2])
    0.5
    """
    a, b = _ranks(np.array(left)), _ranks(np.array(right))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return round(float((a * b).sum()) / scale, 12) if scale > 0 else None


def auc(scores_N: Float64Array, right_N: BoolArray, weights_N: Float64Array | None = None) -> float:
    """Probability that a right program scores above a wrong one; equals count half.

    NaN without a right or without a wrong one. Weights say how often a program counts.

    >>> auc(np.array([2.0, 1.0, 1.0]), np.array([True, True, False]))
    0.75
    """
    won, pairs = won_pairs(scores_N, right_N, weights_N)
    return won / pairs if pairs else float("nan")


def _pooled_auc(lists: Sequence[Listed], seed: int) -> Figure | None:
    if not lists:
        return None
    problem_of = np.repeat(np.arange(len(lists)), [len(row.scores) for row in lists])
    scores = np.array([score for row in lists for score in row.scores])
    right = np.array([passed for row in lists for passed in row.passed])
    value = auc(scores, right)
    if np.isnan(value):
        return None

    def resampled(chosen_P: IndexArray) -> Float64Array:
        weights_P = np.bincount(chosen_P, minlength=len(lists)).astype(np.float64)
        return np.array([auc(scores, right, weights_P[problem_of])])

    low, high = bootstrap(len(lists), resampled, seed)
    return Figure(value=value, low=float(low[0]), high=float(high[0]), num=len(scores))


def _ranks(values: Float64Array) -> Float64Array:
    """Ranks from 0; equals share their mean."""
    _, level, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[level]


# ---------------------------------------------------------------- attacks


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """Scores of one pair before an attack and after it; None where it has nothing to do."""

    problem: str
    right: float
    wrong: float
    right_after: float | None
    wrong_after: float | None


def attack_figures(pairs: Sequence[Attacked], seed: int) -> dict[str, Figure]:
    """Return what an attack does.

    `right shift` and `wrong shift`: mean change of the score. `lifted`: of the wrong programs that
    stood below their right sibling, the share that the attack puts strictly above it. A figure
    without a pair is left out.
    """
    problem_of = _numbered([pair.problem for pair in pairs])
    below = [p.wrong_after is not None and p.wrong < p.right for p in pairs]
    columns = {
        "right shift": [
            np.nan if p.right_after is None else p.right_after - p.right for p in pairs
        ],
        "wrong shift": [
            np.nan if p.wrong_after is None else p.wrong_after - p.wrong for p in pairs
        ],
        "lifted": [
            float((p.wrong_after or 0.0) > p.right) if counts else np.nan
            for p, counts in zip(pairs, below, strict=True)
        ],
    }
    figures: dict[str, Figure] = {}
    for name, column in columns.items():
        values = np.array(column, dtype=np.float64)
        known = ~np.isnan(values)
        if known.any():
            figures |= _figures(
                (name,), lambda rows, v=values[known]: _share(v[rows]), problem_of[known], seed
            )
    return figures


# ---------------------------------------------------------------- resampling


def _share(values: NDArray[np.generic]) -> Float64Array:
    return np.array([values.mean() if len(values) else np.nan], dtype=np.float64)


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Each name as a number, in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _over_problems(
    values_P: Float64Array, statistic: Callable[[Float64Array], object], seed: int
) -> Figure:
    def resampled(chosen_P: IndexArray) -> Float64Array:
        return np.array([statistic(values_P[chosen_P])], dtype=np.float64)

    low, high = bootstrap(len(values_P), resampled, seed)
    value = float(resampled(np.arange(len(values_P)))[0])
    return Figure(value=value, low=float(low[0]), high=float(high[0]), num=len(values_P))


def _figures(
    names: Sequence[str],
    values: Callable[[NDArray[np.int64]], Float64Array],
    problem_of: NDArray[np.int64],
    seed: int,
) -> dict[str, Figure]:
    """Figures of rows that belong to problems; `values` maps row numbers to the figures."""
    _, problem_of = np.unique(problem_of, return_inverse=True)
    order = np.argsort(problem_of, kind="stable")
    rows_P: list[NDArray[np.int64]] = np.split(order, np.cumsum(np.bincount(problem_of))[:-1])

    def resampled(chosen_P: IndexArray) -> Float64Array:
        parts: list[NDArray[np.int64]] = [rows_P[p] for p in chosen_P.tolist()]
        return values(np.concatenate(parts))

    found = values(np.arange(len(problem_of)))
    low, high = bootstrap(len(rows_P), resampled, seed)
    return {
        name: Figure(value=float(v), low=float(a), high=float(b), num=len(problem_of))
        for name, v, a, b in zip(names, found, low, high, strict=True)
    }
