"""The KL penalty to a reference, from tokens that the policy sampled, and its gradient.

Axes: M labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conf.schema import KlGradient, KlKind
from rl.terms.samples import rest_of_sample

# exp() of a larger log-ratio is infinite in float32, and infinity times the zero gradient of a
# clipped term is NaN. e**20 is far outside every clip range, so no useful gradient is lost.
_LOG_RATIO_BOUND = 20.0


def bounded(log_ratio_M: Tensor) -> Tensor:
    """A log-ratio whose exp() is finite."""
    return log_ratio_M.clamp(-_LOG_RATIO_BOUND, _LOG_RATIO_BOUND)


def k3(log_ratio_M: Tensor) -> Tensor:
    """exp(x) - 1 - x, which is >= 0; x = log p - log q of samples from q estimates KL(q || p)."""
    return torch.expm1(log_ratio_M) - log_ratio_M


def kl_estimate(logprobs_M: Tensor, ref_logprobs_M: Tensor, kind: KlKind) -> Tensor:
    """Estimate KL(policy || reference) per token, from tokens that the policy sampled.

    With d = logprob - ref_logprob the values are k1 = d, k2 = d**2 / 2, k3 = exp(-d) - 1 + d
    (Schulman, "Approximating KL divergence", 2020): k1 and k3 are unbiased, k2 is biased but small.
    """
    if kind == "k1":
        return logprobs_M - ref_logprobs_M
    if kind == "k2":
        return 0.5 * (logprobs_M - ref_logprobs_M).square()
    return k3(bounded(ref_logprobs_M - logprobs_M))


def kl_penalty(
    logprobs_M: Tensor,
    ref_logprobs_M: Tensor,
    sample_index_M: Tensor,
    kind: KlKind,
    gradient: KlGradient,
) -> Tensor:
    """The estimate with one of two gradients; its value is the same.

    As a loss what counts is the expected gradient under the policy's own samples. `estimator` is
    the derivative of the estimate at the tokens that were sampled:

    - k1: that of the log-prob alone, of expectation 0. It only adds noise.
    - k2: d * grad(logprob), in expectation the gradient of KL(policy || reference) of the next
      token, at beginnings that are taken as given.
    - k3: (1 - exp(-d)) * grad(logprob), which is that of the *other* direction,
      KL(reference || policy). Never more than 1 per token where the policy overshoots (d > 0).

    `expectation` is the derivative of the estimate's expectation. What is sampled depends on the
    policy too, and a token has a share in all estimates from it on: added is
    (sum of those) * grad(logprob), as in REINFORCE. With k1 and k3, which are unbiased, the
    expected gradient is that of KL(policy || reference) of whole completions (arXiv 2506.09477).
    """
    estimate_M = kl_estimate(logprobs_M, ref_logprobs_M, kind)
    if gradient == "estimator":
        return estimate_M
    to_come_M = rest_of_sample(estimate_M.detach(), sample_index_M)
    return estimate_M + to_come_M * (logprobs_M - logprobs_M.detach())
