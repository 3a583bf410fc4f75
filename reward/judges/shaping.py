"""Score -> reward: validity-preserving shaping of one group.

Raw logits of a reward model are unbounded and often negative. If invalid code got 0 beside them,
writing garbage would beat writing honest but weak code. Every kind here keeps the order of valid
scores and puts each valid completion strictly above each invalid one, after the cast to f32 too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from conf.errors import NonFiniteError
from conf.schema import ShapingKind
from rl.types import FloatArray

_Scores = NDArray[np.float64]

# The smallest normal f32: a subnormal would be 0 again on hardware that flushes them.
_FLOOR = float(np.finfo(np.float32).tiny)
_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
_CLIP = 4.0  # logits
_RAW_BOUND = 1e38  # leaves room in f32 for a reward below it


def shape_rewards(scores: Sequence[float | None], kind: ShapingKind) -> FloatArray:
    """Rewards of one group, f32 [G]; a score of None is an invalid completion and has the lowest.

    With s a score and n the number of valid ones:

    - softplus: ln(1 + e^s), invalid 0 (CodeScaler, validity-preserving shaping). The paper's code
      overflows above s = 709 and is 0 in f32 below s = -104; here neither happens.
    - sigmoid: 1 / (1 + e^-s), inside (0, 1); invalid 0
    - rank: rank of s among the valid (1 is lowest, ties share their mean rank) / n; invalid 0
    - raw: s; invalid is the lowest valid score less 1, or 0 in a group without any
    - clip: s between -4 and 4 (CodeRM-NT); invalid as with raw

    All are computed in f64, finite for every finite score and never decreasing in s. Different
    scores tie only beyond the bounds of clip, where f32 cannot tell their rewards apart, or where a
    reward would be less than the smallest normal f32 (1.2e-38; s below -87.3) and is set to it.

    Raises `NonFiniteError` naming the index of a score that is NaN or infinite.

    >>> shape_rewards([0.0, None], "softplus").tolist()
    [0.6931471824645996, 0.0]
    """
    for index, score in enumerate(scores):
        if score is not None and not math.isfinite(score):
            raise NonFiniteError(
                f"score {index} of a group of {len(scores)} is {score}; a score must be finite, "
                "so look for an overflow in the reward model (its dtype, its weights)"
            )
    is_valid_G = np.array([score is not None for score in scores], dtype=np.bool_)
    valid = np.array([score for score in scores if score is not None], dtype=np.float64)
    rewards_G = np.zeros(len(scores), dtype=np.float32)
    if valid.size == 0:
        return rewards_G
    shaped = _SHAPES[kind](valid).astype(np.float32)
    rewards_G[is_valid_G] = shaped
    if kind in ("raw", "clip"):
        rewards_G[~is_valid_G] = _below(shaped.min())
    return rewards_G


def _softplus(s: _Scores) -> _Scores:
    """ln(1 + e^s) without overflow, in (0, inf)."""
    return np.maximum(np.log1p(np.exp(-np.abs(s))) + np.maximum(s, 0.0), _FLOOR)


def _sigmoid(s: _Scores) -> _Scores:
    """1 / (1 + e^-s) without overflow, in (0, 1)."""
    return np.clip(np.exp(np.minimum(s, 0.0)) / (1.0 + np.exp(-np.abs(s))), _FLOOR, _BELOW_ONE)


def _rank(s: _Scores) -> _Scores:
    """Mean rank of each score over the number of scores, in (0, 1]."""
    ordered = np.sort(s)
    first, last = np.searchsorted(ordered, s, "left"), np.searchsorted(ordered, s, "right")
    return (first + 1 + last) / (2.0 * s.size)


def _raw(s: _Scores) -> _Scores:
    """The score, as far as f32 has it."""
    return np.clip(s, -_RAW_BOUND, _RAW_BOUND)


def _clip(s: _Scores) -> _Scores:
    """The score within the bounds."""
    return np.clip(s, -_CLIP, _CLIP)


def _below(lowest: np.float32) -> np.float32:
    """One less; the next smaller f32 where that is no difference."""
    return min(lowest - np.float32(1), np.nextafter(lowest, np.float32(-np.inf)))


_SHAPES: Mapping[ShapingKind, Callable[[_Scores], _Scores]] = {
    "softplus": _softplus,
    "raw": _raw,
    "clip": _clip,
    "sigmoid": _sigmoid,
    "rank": _rank,
}
