"""Objectives of one optimizer step: policy gradient, supervised warm start, preference pairs.

Axes: R rows, L tokens of a row, N samples. All tensors are aligned with the predicting position
(see `rl.types.Microbatch`) and float32, computed outside autocast; the tests run them in float64.

Losses and metrics are divided by *global* denominators (`LossDenominators`), never by what one
microbatch holds: the loss of a minibatch is the plain sum over ranks and microbatches, whatever the
packing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional

from rl.types import Microbatch

# exp() of a larger log-ratio is infinite in float32, and infinity times the zero gradient of a
# clipped term is NaN. e**20 is far outside every clip range, so no useful gradient is lost.
_LOG_RATIO_BOUND = 20.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicrobatchTensors:
    """A `Microbatch` on a device: integers as int64, the rest as float32, all [R, L]."""

    token_ids_RL: Tensor
    position_ids_RL: Tensor
    target_ids_RL: Tensor
    loss_mask_RL: Tensor
    lm_mask_RL: Tensor
    advantages_RL: Tensor
    rollout_logprobs_RL: Tensor
    sequence_weight_RL: Tensor
    sample_index_RL: Tensor

    @classmethod
    def from_microbatch(cls, mb: Microbatch, device: torch.device | str) -> Self:
        """Copy to `device`; arrays that Ray made read-only are fine."""
        return cls(
            token_ids_RL=torch.tensor(mb.token_ids_RL, dtype=torch.int64, device=device),
            position_ids_RL=torch.tensor(mb.position_ids_RL, dtype=torch.int64, device=device),
            target_ids_RL=torch.tensor(mb.target_ids_RL, dtype=torch.int64, device=device),
            loss_mask_RL=torch.tensor(mb.loss_mask_RL, dtype=torch.float32, device=device),
            lm_mask_RL=torch.tensor(mb.lm_mask_RL, dtype=torch.float32, device=device),
            advantages_RL=torch.tensor(mb.advantages_RL, dtype=torch.float32, device=device),
            rollout_logprobs_RL=torch.tensor(
                mb.rollout_logprobs_RL, dtype=torch.float32, device=device
            ),
            sequence_weight_RL=torch.tensor(
                mb.sequence_weight_RL, dtype=torch.float32, device=device
            ),
            sample_index_RL=torch.tensor(mb.sample_index_RL, dtype=torch.int64, device=device),
        )


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
        outputs_RL: Tensor,
        mb: MicrobatchTensors,
        old_RL: Tensor | None,
        ref_RL: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this microbatch's share of the loss and of each metric (detached scalars).

        `outputs_RL` is what the model says of each position: the log-prob of its target, or a
        score. Summing over microbatches and ranks gives the figures of the minibatch. The loss is
        connected to `outputs_RL` even when nothing is masked in: all ranks must run backward.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyObjective:
    """Clipped surrogate of the policy gradient, with an optional KL penalty to a reference.

    Per token, with r = exp(logprob - old), advantage A and w the weight of truncated importance
    sampling: -w * min(r A, clip(r, 1 - eps_low, 1 + eps_high) A) (PPO, arXiv 1707.06347 eq. 7;
    clip-higher: DAPO, arXiv 2503.14476), bounded below by dual_clip * A inside the minus sign
    where A < 0 (dual-clip, arXiv 1912.09729). `old_RL` None means that the policy has not moved
    since: r is exactly 1, and the gradient is that of the plain policy gradient.

    w = min(exp(old - rollout), tis_cap), without gradient, corrects for an engine that sampled
    from other probabilities than the trainer computes. It does not weigh the KL penalty.

    >>> PolicyObjective(clip_eps_high=0.28, tis_cap=None).clip_eps_low
    0.2
    """

    clip_eps_low: float = 0.2
    clip_eps_high: float = 0.28
    dual_clip: float | None = 3.0
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean"
    kl_coef: float = 0.0
    kl_kind: Literal["k1", "k2", "k3"] = "k3"
    tis_cap: float | None = 2.0

    def __call__(
        self,
        outputs_RL: Tensor,
        mb: MicrobatchTensors,
        old_RL: Tensor | None,
        ref_RL: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics; ValueError when the KL penalty is on and `ref_RL` is missing."""
        if self.kl_coef > 0 and ref_RL is None:
            raise ValueError(f"kl_coef={self.kl_coef} needs reference log-probs; ref_RL is None")
        mask_RL = mb.loss_mask_RL
        logprobs_RL = _only(outputs_RL, mask_RL)
        old_logprobs_RL = (
            logprobs_RL.detach() if old_RL is None else _only(old_RL.detach(), mask_RL)
        )
        log_ratio_RL = _bounded(logprobs_RL - old_logprobs_RL)
        mismatch_RL = _bounded(old_logprobs_RL - _only(mb.rollout_logprobs_RL, mask_RL))

        surrogate_RL, clipped_RL = self._surrogate(log_ratio_RL.exp(), mb.advantages_RL)
        loss_RL = -surrogate_RL
        means_RL = {
            "policy/clip_frac": clipped_RL.to(mask_RL.dtype),
            "policy/approx_kl": _k3(log_ratio_RL),
            "policy/entropy_proxy": -logprobs_RL,
            "rollout/mismatch_kl": _k3(mismatch_RL),
        }
        if self.tis_cap is not None:
            weight_RL = mismatch_RL.exp()
            loss_RL = loss_RL * weight_RL.clamp(max=self.tis_cap)
            means_RL["policy/tis_capped_frac"] = (weight_RL > self.tis_cap).to(mask_RL.dtype)
        if ref_RL is not None:
            ref_logprobs_RL = _only(ref_RL.detach(), mask_RL)
            means_RL["policy/ref_kl"] = kl_penalty(logprobs_RL, ref_logprobs_RL, "k3")
            if self.kl_coef > 0:
                penalty_RL = kl_penalty(logprobs_RL, ref_logprobs_RL, self.kl_kind)
                loss_RL = loss_RL + self.kl_coef * penalty_RL

        if self.aggregation == "token_mean":
            loss = (loss_RL * mask_RL).sum() / norm.num_loss_tokens
        else:
            loss = (loss_RL * mb.sequence_weight_RL).sum() / norm.num_samples
        metrics = {
            name: (value_RL.detach() * mask_RL).sum() / norm.num_loss_tokens
            for name, value_RL in means_RL.items()
        }
        return loss, {"policy/loss": loss.detach(), **metrics}

    def _surrogate(self, ratio_RL: Tensor, advantages_RL: Tensor) -> tuple[Tensor, Tensor]:
        """Return the term to maximise, and where a bound (not the ratio) decides it."""
        free_RL = ratio_RL * advantages_RL
        ratio_clip_RL = ratio_RL.clamp(1.0 - self.clip_eps_low, 1.0 + self.clip_eps_high)
        surrogate_RL = torch.minimum(free_RL, ratio_clip_RL * advantages_RL)
        if self.dual_clip is not None:
            bound_RL = torch.maximum(surrogate_RL, self.dual_clip * advantages_RL)
            surrogate_RL = torch.where(advantages_RL < 0, bound_RL, surrogate_RL)
        return surrogate_RL, surrogate_RL != free_RL


@dataclass(frozen=True, slots=True)
class NllObjective:
    """Mean negative log-likelihood of the completion tokens: the supervised warm start."""

    def __call__(
        self,
        outputs_RL: Tensor,
        mb: MicrobatchTensors,
        old_RL: Tensor | None,
        ref_RL: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and `warm/loss`; `old_RL` and `ref_RL` play no part."""
        loss = -_only(outputs_RL, mb.loss_mask_RL).sum() / norm.num_loss_tokens
        return loss, {"warm/loss": loss.detach()}


def attention_mask(mb: MicrobatchTensors) -> Tensor | None:
    """Which token sees which, [R, L, L] bool; None where position ids alone isolate the samples.

    A token sees those before it of its own sample. One of a sample that goes on at position p > 0
    also sees the first p tokens of the sample before it in the row, which both share.
    """
    index_RL, position_RL = mb.sample_index_RL, mb.position_ids_RL
    starts_RL = torch.ones_like(index_RL, dtype=torch.bool)
    starts_RL[:, 1:] = index_RL[:, 1:] != index_RL[:, :-1]
    if not bool((starts_RL & (position_RL > 0)).any()):
        return None
    columns_L = torch.arange(index_RL.shape[1], device=index_RL.device)
    start_RL = torch.where(starts_RL, columns_L, 0).cummax(dim=1).values
    shared_RL = position_RL.gather(1, start_RL)  # tokens that the sample before holds for it
    segment_RL = starts_RL.cumsum(dim=1)
    behind_LL = columns_L[:, None] >= columns_L[None, :]
    distance_RLL = segment_RL[:, :, None] - segment_RL[:, None, :]
    sees_shared_RLL = (distance_RLL == 1) & (position_RL[:, None, :] < shared_RL[:, :, None])
    return behind_LL & ((distance_RLL == 0) | sees_shared_RLL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairObjective:
    """Bradley-Terry loss of preference pairs: mean of -log sigmoid(s_chosen - s_rejected - margin).

    Samples 2i (chosen) and 2i + 1 (rejected) of the minibatch share a microbatch, and `loss_mask`
    is 1 at exactly one position of each: where its score is read (`readout="last"` of
    `rl.packing.build_minibatch`). `centring` weighs (s_chosen + s_rejected)**2, which keeps the
    scores near 0: the Bradley-Terry likelihood alone leaves their common offset undetermined.
    `lm_coef` weighs the mean negative log-likelihood of the chosen program's tokens (`lm_mask`),
    which keeps the backbone a language model (Themis, arXiv 2605.00754: 0.25).
    """

    margin: float = 0.0
    centring: float = 0.0
    lm_coef: float = 0.0

    def __call__(
        self,
        outputs_RL: Tensor,
        mb: MicrobatchTensors,
        old_RL: Tensor | None,
        ref_RL: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics; ValueError when the read-outs of this microbatch are not whole pairs.

        `rm/loss` is the Bradley-Terry part alone, `rm/accuracy` counts ties as wrong, `rm/margin`
        is the mean of s_chosen - s_rejected.
        """
        num_pairs = norm.num_samples / 2
        chosen, rejected = _split_pairs(outputs_RL, mb)
        margin = chosen - rejected
        bradley_terry = functional.softplus(self.margin - margin).sum() / num_pairs
        loss = bradley_terry + self.centring * (chosen + rejected).square().sum() / num_pairs
        metrics: dict[str, Tensor] = {}
        if self.lm_coef > 0:
            lm_loss = -_only(outputs_RL, mb.lm_mask_RL).sum() / norm.num_loss_tokens
            loss = loss + self.lm_coef * lm_loss
            metrics["rm/lm_loss"] = lm_loss.detach()
        return loss, metrics | {
            "rm/loss": bradley_terry.detach(),
            "rm/accuracy": (margin > 0).to(margin.dtype).sum() / num_pairs,
            "rm/margin": margin.detach().sum() / num_pairs,
        }


def kl_penalty(
    logprobs_RL: Tensor, ref_logprobs_RL: Tensor, kind: Literal["k1", "k2", "k3"]
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
        return logprobs_RL - ref_logprobs_RL
    if kind == "k2":
        return 0.5 * (logprobs_RL - ref_logprobs_RL).square()
    return _k3(_bounded(ref_logprobs_RL - logprobs_RL))


def _k3(log_ratio_RL: Tensor) -> Tensor:
    """exp(x) - 1 - x, which is >= 0; x = log p - log q of samples from q estimates KL(q || p)."""
    return torch.expm1(log_ratio_RL) - log_ratio_RL


def _bounded(log_ratio_RL: Tensor) -> Tensor:
    return log_ratio_RL.clamp(-_LOG_RATIO_BOUND, _LOG_RATIO_BOUND)


def _only(values_RL: Tensor, mask_RL: Tensor) -> Tensor:
    """0 off the mask, in value and in gradient, even where `values_RL` is not finite."""
    return values_RL.masked_fill(mask_RL == 0, 0.0)


def _split_pairs(scores_RL: Tensor, mb: MicrobatchTensors) -> tuple[Tensor, Tensor]:
    """Scores of the chosen and of the rejected samples of this microbatch, pair by pair."""
    read_out_RL = mb.loss_mask_RL > 0
    sample_index_N, order_N = mb.sample_index_RL[read_out_RL].sort()
    even_N = sample_index_N[0::2]
    odd_N = sample_index_N[1::2]
    if len(even_N) != len(odd_N) or bool(((even_N % 2 != 0) | (odd_N != even_N + 1)).any()):
        found = ", ".join(str(int(index)) for index in sample_index_N)
        raise ValueError(
            "preference pairs need one read-out of samples 2i and 2i + 1 each in the same "
            f"microbatch; it reads samples {found}"
        )
    scores_N = scores_RL[read_out_RL][order_N]
    return scores_N[0::2], scores_N[1::2]
