"""Figures of an evaluation, from which completions were right. Axes: P problems, G completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from rl.seeds import derive_seed

_NUM_RESAMPLES = 2000
_CONFIDENCE = 0.95

IndexArray = NDArray[np.int64]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """What `num_problems` problems with `num_samples` completions in all say of a policy.

    >>> report = summarise([[True, False], [False, False]], ks=(1, 2), seed=0)
    >>> report.pass_at_1, report.pass_at[2], report.avg
    (0.25, 0.5, 0.25)
    """

    num_problems: int
    num_samples: int
    pass_at: Mapping[int, float]  # k -> unbiased pass@k, mean over problems
    interval: Mapping[int, tuple[float, float]]  # k -> 95 % bootstrap interval over problems
    avg: float  # share of all completions that are right

    @property
    def pass_at_1(self) -> float:
        """Unbiased pass@1. Raises KeyError when it was not asked for."""
        return self.pass_at[1]


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Probability that one of k completions, drawn from these without replacement, is right.

    1 - C(n - c, k) / C(n, k), the unbiased estimator of Chen et al. 2021 (arXiv 2107.03374),
    equation 1, as a product, because the binomials overflow. Raises UserError unless
    0 <= c <= n and 1 <= k <= n.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 0 <= num_correct <= num_samples:
        raise UserError(f"num_correct={num_correct}: must be from 0 to num_samples={num_samples}")
    if not 1 <= k <= num_samples:
        raise UserError(
            f"k={k}: must be from 1 to num_samples={num_samples}; sample more or ask for a lower k"
        )
    if num_samples - num_correct < k:
        return 1.0
    remaining = np.arange(num_samples - num_correct + 1, num_samples + 1, dtype=np.float64)
    return float(1.0 - np.prod(1.0 - k / remaining))


def mean_pass_at(passed_PG: Sequence[Sequence[bool]], k: int) -> float:
    """Unbiased pass@k, mean over problems.

    >>> mean_pass_at([[True, False], [False, False]], 1)
    0.25
    """
    return float(np.mean([pass_at_k(len(group), sum(group), k) for group in passed_PG]))


def summarise(
    correct_PG: Sequence[Sequence[bool]], ks: Sequence[int], seed: int
) -> EvaluationReport:
    """Return pass@k for each k of `ks`, with intervals by resampling problems.

    Problems may have different numbers of completions. Raises UserError when there is no problem,
    or one with fewer completions than some k.
    """
    if not correct_PG:
        raise UserError("correct_PG is empty: an evaluation needs at least one problem")
    values_KP = np.array(
        [[pass_at_k(len(group), sum(group), k) for group in correct_PG] for k in ks]
    ).reshape(len(ks), len(correct_PG))
    intervals_K = bootstrap_intervals(values_KP, seed)
    num_samples = sum(map(len, correct_PG))
    return EvaluationReport(
        num_problems=len(correct_PG),
        num_samples=num_samples,
        pass_at={k: float(value) for k, value in zip(ks, values_KP.mean(axis=1), strict=True)},
        interval=dict(zip(ks, intervals_K, strict=True)),
        avg=sum(map(sum, correct_PG)) / num_samples,
    )


def bootstrap(
    num_problems: int, statistic: Callable[[IndexArray], Float64Array], seed: int
) -> tuple[Float64Array, Float64Array]:
    """Return lower and upper end [K] of the 95 % intervals of K figures, by resampling problems.

    `statistic` turns problem indices [P], drawn with replacement, into the figures [K]. A resample
    in which a figure is undefined (NaN) does not count for it.
    """
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    tail = (1.0 - _CONFIDENCE) / 2.0
    # One resample at a time: all of them at once would need the memory of 2,000 evaluations.
    values_RK = np.array(
        [statistic(rng.integers(num_problems, size=num_problems)) for _ in range(_NUM_RESAMPLES)]
    )
    low_K, high_K = np.nanquantile(values_RK, (tail, 1.0 - tail), axis=0)
    return low_K, high_K


def bootstrap_intervals(values_KP: Float64Array, seed: int) -> list[tuple[float, float]]:
    """95 % interval of the mean over problems of each of K figures, by resampling problems.

    One seed gives all figures the same resamples, so that their differences can be compared.
    """
    low_K, high_K = bootstrap(
        values_KP.shape[1], lambda chosen_P: values_KP[:, chosen_P].mean(axis=1), seed
    )
    return [(float(low), float(high)) for low, high in zip(low_K, high_K, strict=True)]


def shares_of(
    figures: Callable[[Sequence[Item]], Mapping[str, float]], problems_P: Sequence[Item]
) -> dict[str, Float64Array]:
    """What each problem does to each figure [P]: values whose mean is the figure (jackknife).

    Of a mean over problems these are the values of the problems; of a ratio of sums, which weighs
    problems, they are to first order what resampling them would do. A figure that is undefined
    without one of the problems is left out, and so are all of a single problem.

    >>> shares_of(lambda values: {"mean": sum(values) / len(values)}, [0.0, 1.0, 5.0])["mean"]
    array([0., 1., 5.])
    """
    num_problems = len(problems_P)
    if num_problems < 2:
        return {}
    without_P = [figures([*problems_P[:p], *problems_P[p + 1 :]]) for p in range(num_problems)]
    found: dict[str, Float64Array] = {}
    for name, value in figures(problems_P).items():
        left_P = np.array([figures_of.get(name, np.nan) for figures_of in without_P])
        if np.isfinite(left_P).all():
            found[name] = value + (num_problems - 1) * (left_P.mean() - left_P)
    return found


def best_of_n(
    scores_PG: Sequence[Sequence[float | None]], correct_PG: Sequence[Sequence[bool]]
) -> float:
    """Share of problems whose completion with the highest score is right.

    A completion without a score comes last; of equals the first is taken. Raises UserError when
    the two do not match or are empty.

    >>> best_of_n([[0.1, 0.9], [None, -5.0]], [[False, True], [True, False]])
    0.5
    """
    if [len(scores) for scores in scores_PG] != [len(correct) for correct in correct_PG]:
        raise UserError("scores_PG and correct_PG have different shapes: they must match")
    if not scores_PG or not all(scores_PG):
        raise UserError("scores_PG is empty: best-of-n needs problems with completions")
    right = [correct[_best(scores)] for scores, correct in zip(scores_PG, correct_PG, strict=True)]
    return sum(right) / len(right)


def _best(scores_G: Sequence[float | None]) -> int:
    there_G = np.array([score is not None for score in scores_G])
    return best_first(np.array([score or 0.0 for score in scores_G]), there_G)[0]


def best_first(values_N: NDArray[np.generic], there_N: BoolArray | None = None) -> list[int]:
    """Indices in order of the values, the highest first; equals stay in order.

    Those that are not `there` come last.

    >>> best_first(np.array([0.5, 9.0, 2.0, 0.5]), np.array([True, False, True, True]))
    [2, 0, 3, 1]
    """
    values = values_N.astype(np.float64)
    there = np.ones(len(values), dtype=np.bool_) if there_N is None else there_N
    return np.lexsort((np.where(there, -values, 0.0), ~there)).tolist()


def won_pairs(
    scores_N: Float64Array, right_N: BoolArray, weights_N: Float64Array | None = None
) -> tuple[float, float]:
    """Pairs of a right and a wrong one that the right one wins, and all such pairs.

    Equal scores count half: the Mann-Whitney statistic. Weights say how often each one counts.

    >>> won_pairs(np.array([2.0, 1.0, 1.0]), np.array([True, True, False]))
    (1.5, 2.0)
    """
    weights = np.ones(len(scores_N)) if weights_N is None else weights_N
    _, level = np.unique(scores_N, return_inverse=True)
    wins = np.bincount(level, weights * right_N)
    losses = np.bincount(level, weights * ~right_N)
    below = np.cumsum(losses) - losses
    return float((wins * (below + losses / 2)).sum()), float(wins.sum() * losses.sum())
