"""Disagreement of the models among the judges of a sum, and what it takes off a reward.

An ensemble of reward models is hacked less easily where what they disagree on counts for less
(Coste et al., arXiv 2310.02743). Axes: K models, G completions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl.types import JudgeKind, Part, Parts

Float64Array = NDArray[np.float64]

_MODELS = (JudgeKind.RM, JudgeKind.GENERATIVE)


def disagreement(parts: Parts) -> Float64Array | None:
    """Standard deviation of the rewards that models give each completion, not weighed, [G].

    None with fewer than two models.
    """
    models = _models(parts)
    return _rewards(models).std(axis=0) if len(models) > 1 else None


def penalty(parts: Parts, coef: float) -> Float64Array:
    """What the disagreement takes off each sum, [G]; 0 with fewer than two models.

    `coef` standard deviations for each unit of the models' weights: with equal weights the models
    are then worth mean - coef * std. It never takes more than leaves all of them at the reward of
    the lowest, so that what is worth the same to all keeps its worth.
    """
    models = _models(parts)
    if len(models) < 2:
        return np.zeros(len(next(iter(parts.values())).rewards_G) if parts else 0)
    rewards_KG = _rewards(models)
    weights_K = np.array([part.weight for part in models])
    to_lowest_G = weights_K @ (rewards_KG - rewards_KG.min(axis=0))
    return np.minimum(coef * weights_K.sum() * rewards_KG.std(axis=0), to_lowest_G)


def _models(parts: Parts) -> list[Part]:
    return [part for part in parts.values() if part.judge in _MODELS]


def _rewards(models: list[Part]) -> Float64Array:
    return np.array([part.rewards_G for part in models], dtype=np.float64)
