"""Objectives of one optimizer step: policy gradient, supervised warm start, preference pairs.

Axes: R rows, L tokens of a row, M labels (see `rl.types.Microbatch`). Tensors of a loss are
float32, computed outside autocast; the tests run them in float64.

Losses and metrics are divided by *global* denominators (`LossDenominators`), never by what one
microbatch holds: the loss of a minibatch is the plain sum over ranks and microbatches, whatever the
packing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from conf.schema import Aggregation, KlGradient, KlKind, Level, PairReference, SurrogateName
from rl.terms.kl import bounded, k3, kl_estimate, kl_penalty
from rl.terms.mismatch import masked, weighed
from rl.terms.samples import at_level, sums_of_samples
from rl.terms.surrogate import Surrogate, clipped, gated, weighted
from rl.types import Microbatch


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
    support_MK: Tensor | None = None

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
            support_MK=None if mb.support_MK is None else on_device(mb.support_MK),
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
    """A surrogate of the policy gradient, with optional KL penalty and entropy bonus.

    Each part is chosen by itself; docs/algorithms.md has the table. With r the ratio of
    probabilities, new over old, at `ratio_level` (`geometric`: GSPO), the loss of a label is

        -surrogate(r, advantage) * importance weight + kl_coef * KL - entropy_coef * entropy

    `surrogate` is one of `rl.terms.surrogate`, the weight is that of `rl.terms.mismatch`, without
    gradient, and weighs neither the KL penalty nor the entropy bonus. `old_M` None means that the
    policy has not moved since: r is exactly 1, and the gradient that of the plain policy gradient.

    Losses of labels are summed over the minibatch and divided by its tokens (`token_mean`,
    DAPO), by its samples after a mean over each (`sequence_mean`, GRPO), or by `constant_tokens`,
    which depends on no completion (`constant`; Dr. GRPO, arXiv 2503.20783).

    >>> PolicyObjective(clip_eps_high=0.28, surrogate="cispo", dual_clip=None).clip_eps_low
    0.2
    """

    surrogate: SurrogateName = "clip"
    ratio_level: Level = "token"
    clip_eps_low: float = 0.2
    clip_eps_high: float = 0.28
    dual_clip: float | None = 3.0
    sapo_tau_pos: float = 1.0
    sapo_tau_neg: float = 1.05
    aggregation: Aggregation = "token_mean"
    constant_tokens: int = 0  # with aggregation `constant` alone
    kl_coef: float = 0.0
    kl_kind: KlKind = "k3"
    kl_gradient: KlGradient = "estimator"
    entropy_coef: float = 0.0
    tis_cap: float | None = 2.0
    tis_level: Level = "token"
    mismatch_bound: float | None = None
    mismatch_level: Level = "geometric"

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
        log_ratio_M = logprobs_M - old_logprobs_M
        mismatch_M = old_logprobs_M - mb.rollout_logprobs_M
        means_M = {
            "policy/approx_kl": k3(bounded(log_ratio_M)),
            "policy/entropy": outputs.entropy_M,
            "rollout/mismatch_kl": k3(bounded(mismatch_M)),
        }
        gain_M, clipped_M = self._surrogate(log_ratio_M, logprobs_M, mb)
        if clipped_M is not None:
            means_M["policy/clip_frac"] = clipped_M.to(gain_M.dtype)
        gain_M, corrected_M = self._correct(gain_M, mismatch_M, mb.sample_index_M)
        loss_M = -gain_M
        means_M |= corrected_M
        if ref_M is not None:
            means_M["policy/ref_kl"] = kl_estimate(logprobs_M, ref_M.detach(), "k3")
            if self.kl_coef > 0:
                penalty_M = kl_penalty(
                    logprobs_M, ref_M.detach(), mb.sample_index_M, self.kl_kind, self.kl_gradient
                )
                loss_M = loss_M + self.kl_coef * penalty_M
        if self.entropy_coef > 0:
            loss_M = loss_M - self.entropy_coef * outputs.entropy_M
        loss = self._aggregate(loss_M, mb, norm)
        metrics = {
            name: value_M.detach().sum() / norm.num_loss_tokens for name, value_M in means_M.items()
        }
        return loss, {"policy/loss": loss.detach(), **metrics}

    def _surrogate(
        self, log_ratio_M: Tensor, logprobs_M: Tensor, mb: MicrobatchTensors
    ) -> Surrogate:
        ratio_M = bounded(at_level(log_ratio_M, mb.sample_index_M, self.ratio_level)).exp()
        clip = {"eps_low": self.clip_eps_low, "eps_high": self.clip_eps_high}
        match self.surrogate:
            case "clip":
                return clipped(ratio_M, mb.advantages_M, **clip, dual_clip=self.dual_clip)
            case "cispo":
                return weighted(ratio_M, mb.advantages_M, logprobs_M, **clip)
            case "sapo":
                tau_pos, tau_neg = self.sapo_tau_pos, self.sapo_tau_neg
                return gated(ratio_M, mb.advantages_M, tau_pos=tau_pos, tau_neg=tau_neg)

    def _correct(
        self, gain_M: Tensor, mismatch_M: Tensor, sample_index_M: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The gain corrected for what the engine sampled from; None turns a correction off."""
        found_M: dict[str, Tensor] = {}
        if self.tis_cap is not None:
            gain_M, capped_M = weighed(
                gain_M, mismatch_M, sample_index_M, cap=self.tis_cap, level=self.tis_level
            )
            found_M["policy/tis_capped_frac"] = capped_M.to(gain_M.dtype)
        if self.mismatch_bound is not None:
            bound, level = self.mismatch_bound, self.mismatch_level
            gain_M, outside_M = masked(gain_M, mismatch_M, sample_index_M, bound=bound, level=level)
            found_M["policy/mismatch_masked_frac"] = outside_M.to(gain_M.dtype)
        return gain_M, found_M

    def _aggregate(self, loss_M: Tensor, mb: MicrobatchTensors, norm: LossDenominators) -> Tensor:
        match self.aggregation:
            case "token_mean":
                return loss_M.sum() / norm.num_loss_tokens
            case "sequence_mean":
                return (loss_M * mb.sequence_weight_M).sum() / norm.num_samples
            case "constant":
                return loss_M.sum() / self.constant_tokens


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoObjective:
    """Direct preference optimisation (DPO, arXiv 2305.18290): a mean over pairs of

        -log sigmoid(beta * (gain_chosen - gain_rejected))

    with the gain of a sample its log-prob under the policy less that under the reference, summed
    over its labels. Samples 2i (chosen) and 2i + 1 (rejected) of the minibatch share a microbatch
    (`Update.group_of=2`). Two samples whose prompt ends with the steps that they share, and whose
    completion is one step each, make it Step-DPO (arXiv 2406.18629).

    The reference is the `initial` policy (`ref_M`), or that of the `start` of the update (`old_M`;
    None where the policy has not moved since, so that all gains are 0).
    """

    beta: float = 0.1
    reference: PairReference = "initial"

    def __call__(
        self,
        outputs: Outputs,
        mb: MicrobatchTensors,
        old_M: Tensor | None,
        ref_M: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics; ValueError without the reference, or for samples that are no pairs.

        `policy/dpo/accuracy` counts ties as wrong; margin and gains are in units of beta.
        """
        known_M = old_M if self.reference == "start" else ref_M
        if known_M is None and self.reference == "initial":
            raise ValueError("reference='initial' needs reference log-probs; ref_M is None")
        values_M = outputs.values_M
        gain_M = values_M - (values_M if known_M is None else known_M).detach()
        present_N = torch.bincount(mb.sample_index_M).nonzero().flatten()
        _check_pairs(present_N)
        gain_N = sums_of_samples(gain_M, mb.sample_index_M)[present_N]
        chosen, rejected = self.beta * gain_N[0::2], self.beta * gain_N[1::2]
        margin = chosen - rejected
        num_pairs = norm.num_samples / 2
        loss = functional.softplus(-margin).sum() / num_pairs
        return loss, {
            "policy/dpo/loss": loss.detach(),
            "policy/dpo/accuracy": (margin > 0).to(margin.dtype).sum() / num_pairs,
            "policy/dpo/margin": margin.detach().sum() / num_pairs,
            "policy/dpo/chosen": chosen.detach().sum() / num_pairs,
            "policy/dpo/rejected": rejected.detach().sum() / num_pairs,
        }


def _split_pairs(values_M: Tensor, mb: MicrobatchTensors) -> tuple[Tensor, Tensor]:
    """Scores of the chosen and of the rejected samples of this microbatch, pair by pair."""
    score_M = ~mb.is_token_M
    sample_index_N, order_N = mb.sample_index_M[score_M].sort()
    _check_pairs(sample_index_N)
    scores_N = values_M[score_M][order_N]
    return scores_N[0::2], scores_N[1::2]


def _check_pairs(sample_index_N: Tensor) -> None:
    """Raise ValueError unless the samples, in order, are 2i and 2i + 1 for some i each."""
    even_N = sample_index_N[0::2]
    odd_N = sample_index_N[1::2]
    if len(even_N) != len(odd_N) or bool(((even_N % 2 != 0) | (odd_N != even_N + 1)).any()):
        found = ", ".join(str(int(index)) for index in sample_index_N)
        raise ValueError(
            "preference pairs need samples 2i and 2i + 1, with one score each where scores are "
            f"read, in the same microbatch; it reads samples {found}"
        )
