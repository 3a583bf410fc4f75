"""DPO against the plain formula, whatever the packing and the number of ranks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from rl.loss import DpoObjective, LossDenominators, MicrobatchTensors, Outputs
from rl.packing import Packing, build_minibatch, split_minibatches
from rl.parcels import Minibatch
from rl.types import Microbatch, Sample

pytestmark = pytest.mark.unit

VOCABULARY = 12
NORM = LossDenominators(num_loss_tokens=4, num_samples=2)


def pairs(num: int, prefix: int = 0) -> list[Sample]:
    """Pairs of a chosen and a rejected answer, which share `prefix` tokens after the question."""
    rng = np.random.default_rng(num + 100 * prefix)
    made: list[Sample] = []
    for pair in range(num):
        prompt = rng.integers(0, VOCABULARY, 3 + pair % 3 + prefix)
        for side in range(2):
            own = rng.integers(0, VOCABULARY, int(rng.integers(2, 9)))
            made.append(
                Sample(
                    prompt_id=f"p{pair // 2}",
                    sample_idx=side,
                    token_ids=np.concatenate([prompt, own]).astype(np.int32),
                    num_prompt_tokens=len(prompt),
                    rollout_logprobs=np.zeros(len(own), np.float32),
                    advantage=0.0,
                    policy_version=0,
                )
            )
    return made


def bigram(seed: int) -> Tensor:
    """A model that reads one token: logits of the next, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(VOCABULARY, VOCABULARY, dtype=torch.float64, generator=generator)


def said(weights: Tensor, mb: MicrobatchTensors) -> Tensor:
    """Log-probs of the labels under a bigram model."""
    before_M = mb.token_ids_RL.flatten()[mb.place_M]
    return weights.log_softmax(-1)[before_M, mb.target_ids_M]


def formula(weights: Tensor, reference: Tensor, samples: list[Sample], beta: float) -> Tensor:
    """The loss of the paper, sample by sample."""

    def logprob(model: Tensor, sample: Sample) -> Tensor:
        ids = torch.tensor(sample.token_ids.astype(np.int64))
        of_T = model.log_softmax(-1)[ids[:-1], ids[1:]][sample.num_prompt_tokens - 1 :]
        return of_T.sum()

    losses = [
        -torch.log(
            torch.sigmoid(
                beta
                * (
                    (logprob(weights, w) - logprob(reference, w))
                    - (logprob(weights, l) - logprob(reference, l))
                )
            )
        )
        for w, l in zip(samples[0::2], samples[1::2], strict=True)  # noqa: E741
    ]
    return torch.stack(losses).mean()


def microbatches(minibatch: Minibatch) -> list[Microbatch]:
    return [mb for rank in minibatch.microbatches_by_rank for mb in rank]


PACKINGS = {
    "one row": Packing(num_ranks=1, microbatch_tokens=512),
    "short rows": Packing(num_ranks=1, microbatch_tokens=48, row_tokens=40),
    "shared prefixes": Packing(num_ranks=1, microbatch_tokens=64, share_prefix="on"),
    "alone": Packing(num_ranks=1, microbatch_tokens=48, packs=False),
}


@pytest.mark.parametrize("prefix", [0, 5])  # with a prefix: Step-DPO
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.parametrize("reference", ["initial", "start"])
def test_loss_and_gradient_are_the_formula_under_every_packing_and_number_of_ranks(
    name: str, num_ranks: int, prefix: int, reference: str
) -> None:
    samples = pairs(7, prefix)
    packing = dataclasses.replace(PACKINGS[name], num_ranks=num_ranks)
    minibatch = build_minibatch(samples, packing, group_of=2)
    weights, frozen = bigram(0).requires_grad_(), bigram(1)
    norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
    objective = DpoObjective(beta=0.3, reference=reference)  # pyright: ignore[reportArgumentType]
    total = torch.zeros((), dtype=torch.float64)
    sums: dict[str, float] = {}
    for microbatch in microbatches(minibatch):
        mb = MicrobatchTensors.from_microbatch(microbatch, "cpu")
        values_M, known_M = said(weights, mb), said(frozen, mb)
        given = (known_M, None) if reference == "start" else (None, known_M)
        loss, metrics = objective(Outputs(values_M, values_M), mb, *given, norm)
        total = total + loss
        for metric, value in metrics.items():
            sums[metric] = sums.get(metric, 0.0) + value.item()
    (gradient,) = torch.autograd.grad(total, weights)
    expected = formula(weights, frozen, samples, 0.3)
    (expected_gradient,) = torch.autograd.grad(expected, weights)
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-13)
    assert sums["policy/dpo/loss"] == pytest.approx(expected.item(), rel=1e-12)
    margin = sums["policy/dpo/chosen"] - sums["policy/dpo/rejected"]
    assert sums["policy/dpo/margin"] == pytest.approx(margin)
    assert 0 <= sums["policy/dpo/accuracy"] <= 1


@pytest.mark.parametrize("name", PACKINGS)
def test_a_pair_is_never_split_over_microbatches_or_minibatches(name: str) -> None:
    samples = pairs(9)
    parts = split_minibatches(samples, 3)
    assert len(parts) == 3
    for part in parts:
        minibatch = build_minibatch(part, PACKINGS[name], group_of=2)
        for mb in microbatches(minibatch):
            indices = set(mb.sample_index_M.tolist())
            assert {index ^ 1 for index in indices} == indices


def one_pair(chosen: float, rejected: float) -> tuple[Outputs, MicrobatchTensors]:
    mb = build_minibatch(pairs(1), PACKINGS["one row"], group_of=2).microbatches_by_rank[0][0]
    tensors = MicrobatchTensors.from_microbatch(mb, "cpu")
    counts = torch.bincount(tensors.sample_index_M).double()
    of_sample = torch.tensor([chosen, rejected], dtype=torch.float64) / counts
    values_M = of_sample[tensors.sample_index_M]
    return Outputs(values_M, values_M), tensors


def test_metrics_of_a_pair_by_hand() -> None:
    outputs, mb = one_pair(-3.0, -8.0)
    zeros_M = torch.zeros_like(outputs.values_M)
    loss, metrics = DpoObjective(beta=0.5)(outputs, mb, None, zeros_M, NORM)
    assert loss.item() == pytest.approx(np.log1p(np.exp(-0.5 * 5)))
    found = {name: value.item() for name, value in metrics.items()}
    assert found == pytest.approx(
        {
            "policy/dpo/loss": loss.item(),
            "policy/dpo/accuracy": 1.0,
            "policy/dpo/margin": 2.5,
            "policy/dpo/chosen": -1.5,
            "policy/dpo/rejected": -4.0,
        }
    )


def test_before_the_policy_has_moved_the_loss_is_that_of_a_coin_and_a_tie_is_wrong() -> None:
    outputs, mb = one_pair(-3.0, -8.0)
    loss, metrics = DpoObjective(reference="start")(outputs, mb, None, None, NORM)
    assert loss.item() == pytest.approx(np.log(2))
    assert metrics["policy/dpo/accuracy"].item() == 0.0


def test_without_the_initial_policy_the_objective_says_what_is_missing() -> None:
    outputs, mb = one_pair(-3.0, -8.0)
    with pytest.raises(ValueError, match="needs reference log-probs; ref_M is None"):
        DpoObjective()(outputs, mb, None, None, NORM)


def test_samples_that_are_no_pairs_are_refused() -> None:
    outputs, mb = one_pair(-3.0, -8.0)
    moved = dataclasses.replace(mb, sample_index_M=mb.sample_index_M + 1)
    with pytest.raises(ValueError, match=r"need samples 2i and 2i \+ 1"):
        DpoObjective(reference="start")(outputs, moved, None, None, NORM)
