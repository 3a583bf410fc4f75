"""Advantages: what a completion earned above other answers, as a rule those to its prompt.

Axes: P prompts, G completions of a group. Groups may differ in size after faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conf.errors import NonFiniteError
from conf.schema import AdvantageBaseline, AdvantageScale
from rl.types import FloatArray, JudgedGroup

_Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageConfig:
    """What a reward is compared with, and what the difference is divided by.

    `group_std` is GRPO's (arXiv 2402.03300); with the continuous scores of a reward model it turns
    noise among equally good answers into full-size advantages. `batch_std` keeps the sizes of the
    differences comparable between groups. `none` divides by 1. `rank` ignores their size.
    """

    scale: AdvantageScale
    std_floor: float  # lower bound of the standard deviation, in units of reward
    baseline: AdvantageBaseline = "group"
    # Whether each judge of a sum has advantages of its own, which are weighed and added up.
    apart: bool = False


def batch_advantages(groups_P: Sequence[JudgedGroup], cfg: AdvantageConfig) -> list[FloatArray]:
    """Return the advantages of a batch; groups of different tasks or judges are scaled apart.

    Within a group nothing changes, because it has one judge. But a reward model's softplus and the
    0 or 1 of tests are different units: under one standard deviation for both, the judge with the
    wider rewards would decide how much the other counts, and differently so as its scores drift.
    A masked completion has 0, and counts neither in a baseline nor in a scale.
    """
    advantages: dict[int, FloatArray] = {}
    units = [(group.task, group.judge) for group in groups_P]
    for unit in dict.fromkeys(units):
        own = [index for index, found in enumerate(units) if found == unit]
        scaled_PG = _taught_advantages([groups_P[index] for index in own], cfg)
        for index, scaled_G in zip(own, scaled_PG, strict=True):
            taught_G = groups_P[index].taught_G
            advantages[index] = np.zeros(len(taught_G), np.float32)
            advantages[index][taught_G] = scaled_G
    return [advantages[index] for index in range(len(groups_P))]


def _taught_advantages(groups_P: Sequence[JudgedGroup], cfg: AdvantageConfig) -> list[FloatArray]:
    """Advantages of the completions that the policy learns from, of groups with the same judges.

    With `apart` those of each judge of a sum, weighed and added up in the order of the judges: no
    judge counts for more because its rewards are wider (GDPO's decoupling, arXiv 2601.05242).
    """
    if not cfg.apart or not groups_P[0].parts:
        return group_advantages([group.rewards_G[group.taught_G] for group in groups_P], cfg)
    parts = groups_P[0].parts
    by_part = [
        group_advantages([g.parts[name].rewards_G[g.taught_G] for g in groups_P], cfg)
        for name in parts
    ]
    weights = np.array([part.weight for part in parts.values()])
    return [
        (weights @ np.stack(own_KG).astype(np.float64)).astype(np.float32)
        for own_KG in zip(*by_part, strict=True)
    ]


def group_advantages(rewards_PG: Sequence[FloatArray], cfg: AdvantageConfig) -> list[FloatArray]:
    """Return the advantages of each group (computed in float64).

    With c = reward - baseline, where the baseline is

    - `group`: the mean of the group, so that advantages sum to 0 in every group (GRPO)
    - `leave_one_out`: the mean of the others of the group, which makes c larger by G / (G - 1) and
      keeps it unbiased (RLOO, arXiv 2402.14740)
    - `batch`: the mean over all completions of the batch, for groups of one too (REINFORCE++,
      arXiv 2501.03262)
    - `none`: 0, for rewards that have been compared with something (`rl.recipes.actor_critic`), or
      for REINFORCE without a baseline

    the advantage is

    - `group_std`: c / max(sqrt(mean of c**2 in the group), std_floor)
    - `batch_std`: c / max(sqrt(mean of c**2 over all completions of the batch), std_floor)
    - `none`: c
    - `rank`: ranks in the group (ties share their average), centred and divided by
      sqrt((G**2 - 1) / 12), so that a group without ties has a standard deviation of 1

    A group of equal rewards, or of one, gets zeros, save with the baseline of the batch or
    with none. Raises NonFiniteError for a NaN or an infinity.

    >>> cfg = AdvantageConfig(scale="none", std_floor=0.05)
    >>> group_advantages([np.array([0.0, 1.0], np.float32)], cfg)
    [array([-0.5,  0.5], dtype=float32)]
    """
    _check_finite(rewards_PG)
    if cfg.scale == "rank":
        advantages_PG = [_centred_ranks(rewards_G) for rewards_G in rewards_PG]
    else:
        centred_PG = _centred(rewards_PG, cfg.baseline)
        batch_std = _std(np.concatenate(centred_PG)) if centred_PG else 0.0
        advantages_PG = [
            centred_G / _divisor(_std(centred_G), batch_std, cfg) for centred_G in centred_PG
        ]
    return [advantages_G.astype(np.float32) for advantages_G in advantages_PG]


def _divisor(group_std: float, batch_std: float, cfg: AdvantageConfig) -> float:
    if cfg.scale == "none":
        return 1.0
    return max(group_std if cfg.scale == "group_std" else batch_std, cfg.std_floor)


def _centred(rewards_PG: Sequence[FloatArray], baseline: AdvantageBaseline) -> list[_Float64Array]:
    """Rewards minus baseline: exactly 0 for equal float32 rewards, whose float64 sum is exact."""
    values_PG = [rewards_G.astype(np.float64) for rewards_G in rewards_PG]
    if baseline == "none":
        return values_PG
    if baseline == "batch":
        mean = np.concatenate(values_PG).mean() if any(v.size for v in values_PG) else 0.0
        return [values_G - mean for values_G in values_PG]
    centred_PG = [
        values_G - values_G.mean() if values_G.size else values_G for values_G in values_PG
    ]
    if baseline == "group":
        return centred_PG
    return [centred_G * (centred_G.size / max(1, centred_G.size - 1)) for centred_G in centred_PG]


def _std(centred: _Float64Array) -> float:
    return float(np.sqrt(np.mean(np.square(centred)))) if centred.size else 0.0


def _centred_ranks(rewards_G: FloatArray) -> _Float64Array:
    num = rewards_G.size
    if num < 2:
        return np.zeros(num)
    _, inverse_G, counts = np.unique(rewards_G, return_inverse=True, return_counts=True)
    average_rank = np.cumsum(counts) - (counts - 1) / 2  # 1-based; the mean of a run of ties
    centred_G = average_rank[inverse_G] - (num + 1) / 2
    return centred_G / np.sqrt((num**2 - 1) / 12)


def _check_finite(rewards_PG: Sequence[FloatArray]) -> None:
    for group_idx, rewards_G in enumerate(rewards_PG):
        bad = np.flatnonzero(~np.isfinite(rewards_G))
        if bad.size:
            sample_idx = int(bad[0])
            raise NonFiniteError(
                f"reward of group {group_idx}, sample {sample_idx} is {rewards_G[sample_idx]}; "
                "rewards must be finite"
            )
