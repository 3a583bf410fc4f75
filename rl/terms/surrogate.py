"""Surrogates of the policy gradient: what a label gains by a change of its probability.

With r the ratio of probabilities, new over old, and A the advantage. At r = 1, before the policy
has moved, every surrogate has the gradient of the plain policy gradient, A * grad(logprob).

Axes: M labels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Surrogate(NamedTuple):
    """A term to maximise."""

    gain_M: Tensor
    clipped_M: Tensor | None  # where a bound, not the ratio, decides; None: there are no bounds


def clipped(
    ratio_M: Tensor,
    advantages_M: Tensor,
    *,
    eps_low: float,
    eps_high: float,
    dual_clip: float | None,
) -> Surrogate:
    """min(r A, clip(r, 1 - eps_low, 1 + eps_high) A), at A < 0 at least dual_clip * A.

    PPO (arXiv 1707.06347, eq. 7); an eps_high above eps_low is clip-higher (DAPO,
    arXiv 2503.14476); the lower bound is dual-clip (arXiv 1912.09729). With r the geometric mean of
    a completion's ratios, and no dual clip, it is GSPO (arXiv 2507.18071).
    """
    free_M = ratio_M * advantages_M
    ratio_clip_M = ratio_M.clamp(1.0 - eps_low, 1.0 + eps_high)
    gain_M = torch.minimum(free_M, ratio_clip_M * advantages_M)
    if dual_clip is not None:
        bound_M = torch.maximum(gain_M, dual_clip * advantages_M)
        gain_M = torch.where(advantages_M < 0, bound_M, gain_M)
    return Surrogate(gain_M, gain_M != free_M)


def weighted(
    ratio_M: Tensor, advantages_M: Tensor, logprobs_M: Tensor, *, eps_low: float, eps_high: float
) -> Surrogate:
    """w A logprob with w = clip(r, 1 - eps_low, 1 + eps_high), through which no gradient flows.

    CISPO (MiniMax-M1, arXiv 2506.13585): a bound makes a gradient smaller, and never
    takes it away. The paper has no lower bound, which is eps_low = 1.
    """
    weight_M = ratio_M.detach()
    bounded_M = weight_M.clamp(1.0 - eps_low, 1.0 + eps_high)
    return Surrogate(bounded_M * advantages_M * logprobs_M, bounded_M != weight_M)


def gated(ratio_M: Tensor, advantages_M: Tensor, *, tau_pos: float, tau_neg: float) -> Surrogate:
    """sigmoid(tau (r - 1)) * 4 / tau * A, with tau_pos where A > 0 and tau_neg elsewhere.

    SAPO (arXiv 2511.20347): the gradient fades as r leaves 1, and has no edge. Its
    factor is r * sech(tau (r - 1) / 2)**2, which is 1 at r = 1.
    """
    tau_M = torch.where(advantages_M > 0, torch.full_like(ratio_M, tau_pos), tau_neg)
    return Surrogate(torch.sigmoid(tau_M * (ratio_M - 1.0)) * 4.0 / tau_M * advantages_M, None)
