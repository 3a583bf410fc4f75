"""Objectives of one optimizer step: policy gradient, supervised warm start, preference pairs.

Axes: R rows, L tokens of a row, M labels (see `rl.types.Microbatch`). Tensors of a loss are
float32, computed outside autocast; the tests run them in float64.

Losses and metrics are divided by *global* denominators (`LossDenominators`), never by what one
microbatch holds: the loss of a minibatch is the plain sum over ranks and microbatches, whatever the
packing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, Self

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rl.types import Microbatch

# exp() of a larger log-ratio is infinite in float32, and infinity times the zero gradient of a
# clipped term is NaN. e**20 is far outside every clip range, so no useful gradient is lost.
_LOG_RATIO_BOUND = 20.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicrobatchTensors:
    """A `Microbatch` on a device: integers as int64, the rest as float32 or bool."""

    token_ids_RL: Tensor
    position_ids_RL: Tensor
    subtree_end_RL: Tensor | None
    place_M: Tensor
    is_token_M: Tensor
    target_ids_M: Tensor
    sample_index_M: Tensor
    advantages_M: Tensor
    rollout_logprobs_M: Tensor
    sequence_weight_M: Tensor

    @classmethod
    def from_microbatch(cls, mb: Microbatch, device: torch.device | str) -> Self:
        """Copy to `device`; arrays that Ray made read-only are fine."""

        def on_device(array: NDArray[Any]) -> Tensor:
            dtype = {"i": torch.int64, "f": torch.float32, "b": torch.bool}[array.dtype.kind]
            return torch.tensor(array, dtype=dtype, device=device)

        ends_RL = mb.subtree_end_RL
        return cls(
            token_ids_RL=on_device(mb.token_ids_RL),
            position_ids_RL=on_device(mb.position_ids_RL),
            subtree_end_RL=None if ends_RL is None else on_device(ends_RL),
            place_M=on_device(mb.place_M),
            is_token_M=on_device(mb.is_token_M),
            target_ids_M=on_device(mb.target_ids_M),
            sample_index_M=on_device(mb.sample_index_M),
            advantages_M=on_device(mb.advantages_M),
            rollout_logprobs_M=on_device(mb.rollout_logprobs_M),
            sequence_weight_M=on_device(mb.sequence_weight_M),
        )


class Outputs(NamedTuple):
    """What the model says of each label of a microbatch."""

    values_M: Tensor  # log-prob of the target, or a score
    entropy_M: Tensor  # of the next token at the label's place, nats; 0 for a score


@dataclass(frozen=True, slots=True)
class LossDenominators:
    """Denominators of a minibatch, over all ranks and microbatches.

    >>> LossDenominators(num_loss_tokens=96, num_samples=4).num_samples
    4
    """

    num_loss_tokens: int
    num_samples: int


class Objective(Protocol):
    """What the training engine minimises."""

    def __call__(
        self,
        outputs: Outputs,
        mb: MicrobatchTensors,
        old_M: Tensor | None,
        ref_M: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this microbatch's share of the loss and of each metric (detached scalars).

        `old_M` and `ref_M` are values of the policy that sampled and of the reference. Summing
        over microbatches and ranks gives the figures of the minibatch. The loss is connected to
        the outputs even when there is no label: all ranks must run backward.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyObjective:
    """Clipped surrogate of the policy gradient, with optional KL penalty and entropy bonus.

    Per token, with r = exp(logprob - old), advantage A and w the weight of truncated importance
    sampling: -w * min(r A, clip(r, 1 - eps_low, 1 + eps_high) A) (PPO, arXiv 1707.06347 eq. 7;
    clip-higher: DAPO, arXiv 2503.14476), bounded below by dual_clip * A inside the minus sign
    where A < 0 (dual-clip, arXiv 1912.09729). `old_M` None means that the policy has not moved
    since: r is exactly 1, and the gradient is that of the plain policy gradient.

    w = min(exp(old - rollout), tis_cap), without gradient, corrects for an engine that sampled
    from other probabilities than the trainer computes. It weighs neither the KL penalty nor the
    entropy bonus.

    >>> PolicyObjective(clip_eps_high=0.28, tis_cap=None).clip_eps_low
    0.2
    """

    clip_eps_low: float = 0.2
    clip_eps_high: float = 0.28
    dual_clip: float | None = 3.0
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean"
    kl_coef: float = 0.0
    kl_kind: Literal["k1", "k2", "k3"] = "k3"
    entropy_coef: float = 0.0
    tis_cap: float | None = 2.0

    def __call__(
        self,
        outputs: Outputs,
        mb: MicrobatchTensors,
        old_M: Tensor | None,
        ref_M: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics; ValueError when the KL penalty is on and `ref_M` is missing."""
        if self.kl_coef > 0 and ref_M is None:
            raise ValueError(f"kl_coef={self.kl_coef} needs reference log-probs; ref_M is None")
        logprobs_M = outputs.values_M
        old_logprobs_M = logprobs_M.detach() if old_M is None else old_M.detach()
        log_ratio_M = _bounded(logprobs_M - old_logprobs_M)
        mismatch_M = _bounded(old_logprobs_M - mb.rollout_logprobs_M)

        surrogate_M, clipped_M = self._surrogate(log_ratio_M.exp(), mb.advantages_M)
        loss_M = -surrogate_M
        means_M = {
            "policy/clip_frac": clipped_M.to(loss_M.dtype),
            "policy/approx_kl": _k3(log_ratio_M),
            "policy/entropy": outputs.entropy_M,
            "rollout/mismatch_kl": _k3(mismatch_M),
        }
        if self.tis_cap is not None:
            weight_M = mismatch_M.exp()
            loss_M = loss_M * weight_M.clamp(max=self.tis_cap)
            means_M["policy/tis_capped_frac"] = (weight_M > self.tis_cap).to(loss_M.dtype)
        if ref_M is not None:
            means_M["policy/ref_kl"] = kl_penalty(logprobs_M, ref_M.detach(), "k3")
            if self.kl_coef > 0:
                penalty_M = kl_penalty(logprobs_M, ref_M.detach(), self.kl_kind)
                loss_M = loss_M + self.kl_coef * penalty_M
        if self.entropy_coef > 0:
            loss_M = loss_M - self.entropy_coef * outputs.entropy_M

        if self.aggregation == "token_mean":
            loss = loss_M.sum() / norm.num_loss_tokens
        else:
            loss = (loss_M * mb.sequence_weight_M).sum() / norm.num_samples
        metrics = {
            name: value_M.detach().sum() / norm.num_loss_tokens for name, value_M in means_M.items()
        }
        return loss, {"policy/loss": loss.detach(), **metrics}

    def _surrogate(self, ratio_M: Tensor, advantages_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return the term to maximise, and where a bound (not the ratio) decides it."""
        free_M = ratio_M * advantages_M
        ratio_clip_M = ratio_M.clamp(1.0 - self.clip_eps_low, 1.0 + self.clip_eps_high)
        surrogate_M = torch.minimum(free_M, ratio_clip_M * advantages_M)
        if self.dual_clip is not None:
            bound_M = torch.maximum(surrogate_M, self.dual_clip * advantages_M)
            surrogate_M = torch.where(advantages_M < 0, bound_M, surrogate_M)
        return surrogate_M, surrogate_M != free_M


@dataclass(frozen=True, slots=True)
class NllObjective:
    """Mean negative log-likelihood of the completion tokens: the supervised warm start."""

    def __call__(
        self,
        outputs: Outputs,
        mb: MicrobatchTensors,
        old_M: Tensor | None,
        ref_M: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and `warm/loss`; `old_M` and `ref_M` play no part."""
        loss = -outputs.values_M.sum() / norm.num_loss_tokens
        return loss, {"warm/loss": loss.detach()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairObjective:
    """Bradley-Terry loss of preference pairs: mean of -log sigmoid(s_chosen - s_rejected - margin).

    Samples 2i (chosen) and 2i + 1 (rejected) of the minibatch share a microbatch, and each has
    exactly one label that is a score (`readout="last"` of `rl.packing.build_minibatch`).
    `centring` weighs (s_chosen + s_rejected)**2, which keeps the scores near 0: the Bradley-Terry
    likelihood alone leaves their common offset undetermined. `lm_coef` weighs the mean negative
    log-likelihood of the chosen program's tokens, which keeps the backbone a language model
    (Themis, arXiv 2605.00754: 0.25).
    """

    margin: float = 0.0
    centring: float = 0.0
    lm_coef: float = 0.0

    def __call__(
        self,
        outputs: Outputs,
        mb: MicrobatchTensors,
        old_M: Tensor | None,
        ref_M: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics; ValueError when the scores of this microbatch are not whole pairs.

        `rm/loss` is the Bradley-Terry part alone, `rm/accuracy` counts ties as wrong, `rm/margin`
        is the mean of s_chosen - s_rejected.
        """
        num_pairs = norm.num_samples / 2
        chosen, rejected = _split_pairs(outputs.values_M, mb)
        margin = chosen - rejected
        bradley_terry = functional.softplus(self.margin - margin).sum() / num_pairs
        loss = bradley_terry + self.centring * (chosen + rejected).square().sum() / num_pairs
        metrics: dict[str, Tensor] = {}
        if self.lm_coef > 0:
            lm_loss = -outputs.values_M[mb.is_token_M].sum() / norm.num_loss_tokens
            loss = loss + self.lm_coef * lm_loss
            metrics["rm/lm_loss"] = lm_loss.detach()
        return loss, metrics | {
            "rm/loss": bradley_terry.detach(),
            "rm/accuracy": (margin > 0).to(margin.dtype).sum() / num_pairs,
            "rm/margin": margin.detach().sum() / num_pairs,
        }


def kl_penalty(
    logprobs_M: Tensor, ref_logprobs_M: Tensor, kind: Literal["k1", "k2", "k3"]
) -> Tensor:
    """Estimate KL(policy || reference) per token, from tokens that the policy sampled.

    With d = logprob - ref_logprob the values are k1 = d, k2 = d**2 / 2, k3 = exp(-d) - 1 + d
    (Schulman, "Approximating KL divergence", 2020): k1 and k3 are unbiased, k2 is biased but small.
    As a loss what counts is the expected gradient under the policy's own samples:

    - k1: the gradient is that of the log-prob alone, of expectation 0. It only adds noise.
    - k2: d * grad(logprob), which is the gradient of KL(policy || reference).
    - k3: (1 - exp(-d)) * grad(logprob), which is the gradient of the *other* direction,
      KL(reference || policy). Never more than 1 per token where the policy overshoots (d > 0).
    """
    if kind == "k1":
        return logprobs_M - ref_logprobs_M
    if kind == "k2":
        return 0.5 * (logprobs_M - ref_logprobs_M).square()
    return _k3(_bounded(ref_logprobs_M - logprobs_M))


def _k3(log_ratio_M: Tensor) -> Tensor:
    """exp(x) - 1 - x, which is >= 0; x = log p - log q of samples from q estimates KL(q || p)."""
    return torch.expm1(log_ratio_M) - log_ratio_M


def _bounded(log_ratio_M: Tensor) -> Tensor:
    return log_ratio_M.clamp(-_LOG_RATIO_BOUND, _LOG_RATIO_BOUND)


def _split_pairs(values_M: Tensor, mb: MicrobatchTensors) -> tuple[Tensor, Tensor]:
    """Scores of the chosen and of the rejected samples of this microbatch, pair by pair."""
    score_M = ~mb.is_token_M
    sample_index_N, order_N = mb.sample_index_M[score_M].sort()
    even_N = sample_index_N[0::2]
    odd_N = sample_index_N[1::2]
    if len(even_N) != len(odd_N) or bool(((even_N % 2 != 0) | (odd_N != even_N + 1)).any()):
        found = ", ".join(str(int(index)) for index in sample_index_N)
        raise ValueError(
            "preference pairs need one score of samples 2i and 2i + 1 each in the same "
            f"microbatch; it reads samples {found}"
        )
    scores_N = values_M[score_M][order_N]
    return scores_N[0::2], scores_N[1::2]
