"""The objectives against plain formulas, hand-computed values and finite differences."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch

from rl.loss import (
    LossDenominators,
    MicrobatchTensors,
    NllObjective,
    PairObjective,
    PolicyObjective,
    kl_penalty,
)
from rl.packing import build_minibatch
from rl.types import Sample

pytestmark = pytest.mark.unit

NO_CORRECTION = PolicyObjective(tis_cap=None)


def tensors(mask, **fields):
    """Float64 microbatch of which only the given fields matter."""
    mask_RL = torch.tensor(mask, dtype=torch.float64)
    zeros_RL = torch.zeros_like(mask_RL)
    names = [field.name for field in dataclasses.fields(MicrobatchTensors)]
    given = {
        name: torch.tensor(value, dtype=torch.int64 if name == "sample_index_RL" else torch.float64)
        for name, value in fields.items()
    }
    return MicrobatchTensors(**{**dict.fromkeys(names, zeros_RL), "loss_mask_RL": mask_RL, **given})


def one_token(objective, *, logprob, old, advantage, rollout=None, ref=None):
    """Loss, gradient and metrics of a minibatch that is one token."""
    output_RL = torch.tensor([[logprob]], dtype=torch.float64, requires_grad=True)
    mb = tensors(
        [[1.0]],
        advantages_RL=[[advantage]],
        rollout_logprobs_RL=[[old if rollout is None else rollout]],
        sequence_weight_RL=[[1.0]],
    )
    as_RL = lambda x: None if x is None else torch.tensor([[x]], dtype=torch.float64)  # noqa: E731
    loss, metrics = objective(output_RL, mb, as_RL(old), as_RL(ref), LossDenominators(1, 1))
    (gradient,) = torch.autograd.grad(loss, output_RL)
    return loss.item(), gradient.item(), {name: m.item() for name, m in metrics.items()}


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected_loss", "expected_gradient"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside the range
        (1.5, 2.0, -2.56, 0.0),  # above 1 + 0.28: clipped
        (0.5, 2.0, -1.0, -1.0),  # below 1 - 0.2, but better is still better: not clipped
        (0.9, -2.0, 1.8, 1.8),
        (0.5, -2.0, 1.6, 0.0),  # below 1 - 0.2: clipped
        (1.5, -2.0, 3.0, 3.0),  # worse is not clipped ...
        (4.0, -2.0, 6.0, 0.0),  # ... until the dual clip at 3
    ],
)
def test_clip_and_dual_clip_by_hand(ratio, advantage, expected_loss, expected_gradient):
    loss, gradient, metrics = one_token(
        NO_CORRECTION, logprob=-1.0 + math.log(ratio), old=-1.0, advantage=advantage
    )
    assert loss == pytest.approx(expected_loss)
    assert gradient == pytest.approx(expected_gradient)
    assert metrics["policy/clip_frac"] == float(expected_gradient == 0.0)
    assert metrics["policy/loss"] == loss


def test_without_dual_clip_the_loss_of_a_bad_token_is_unbounded():
    objective = PolicyObjective(dual_clip=None, tis_cap=None)
    loss, gradient, _ = one_token(objective, logprob=-1 + math.log(9), old=-1.0, advantage=-2.0)
    assert (loss, gradient) == (pytest.approx(18.0), pytest.approx(18.0))


@pytest.mark.parametrize("rollout", [-1.2, -3.0])
def test_truncated_importance_weight_by_hand(rollout):
    # The engine sampled with log-prob `rollout`, the trainer computes -1: weight e**(-1 - rollout).
    loss, gradient, metrics = one_token(
        PolicyObjective(tis_cap=2.0), logprob=-1.0, old=-1.0, advantage=1.5, rollout=rollout
    )
    weight = min(math.exp(-1 - rollout), 2.0)
    assert loss == pytest.approx(-1.5 * weight)
    assert gradient == pytest.approx(-1.5 * weight)
    assert metrics["policy/tis_capped_frac"] == float(rollout == -3.0)
    log_ratio = -1 - rollout
    assert metrics["rollout/mismatch_kl"] == pytest.approx(math.exp(log_ratio) - 1 - log_ratio)


def test_the_importance_weight_does_not_weigh_the_kl_penalty():
    objective = PolicyObjective(tis_cap=2.0, kl_coef=0.5, kl_kind="k2")
    loss, _, _ = one_token(objective, logprob=-1.0, old=-1.0, advantage=0.0, rollout=-3.0, ref=-2.0)
    assert loss == pytest.approx(0.5 * 0.5 * 1.0)


@pytest.mark.parametrize(
    ("kind", "value", "gradient"),
    [
        ("k1", 0.7, 1.0),
        ("k2", 0.5 * 0.7**2, 0.7),
        ("k3", math.exp(-0.7) - 1 + 0.7, 1 - math.exp(-0.7)),
    ],
)
def test_kl_penalty_by_hand(kind, value, gradient):
    objective = PolicyObjective(kl_coef=2.0, kl_kind=kind)
    loss, slope, metrics = one_token(objective, logprob=-1.0, old=-1.0, advantage=0.0, ref=-1.7)
    assert loss == pytest.approx(2 * value)
    assert slope == pytest.approx(2 * gradient)
    assert metrics["policy/ref_kl"] == pytest.approx(math.exp(-0.7) - 1 + 0.7)


def test_expected_kl_gradients_are_those_that_the_docstring_states():
    generator = torch.Generator().manual_seed(0)
    logits_V = torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_()
    ref_V = torch.randn(6, dtype=torch.float64, generator=generator).log_softmax(0)

    def gradient(value):
        return torch.autograd.grad(value, logits_V)[0]

    def expected_gradient(kind):
        logprobs_V = logits_V.log_softmax(0)
        sampled_V = logprobs_V.detach().exp()  # how often each token is sampled: no gradient
        return gradient((sampled_V * kl_penalty(logprobs_V, ref_V, kind)).sum())

    logprobs_V = logits_V.log_softmax(0)
    reverse = gradient((logprobs_V.exp() * (logprobs_V - ref_V)).sum())
    forward = gradient((ref_V.exp() * (ref_V - logits_V.log_softmax(0))).sum())
    torch.testing.assert_close(expected_gradient("k1"), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(expected_gradient("k2"), reverse)
    torch.testing.assert_close(expected_gradient("k3"), forward)


OPTIONS = [
    PolicyObjective(clip_eps_low=low, clip_eps_high=high, dual_clip=dual, aggregation=agg, **kl)
    for low, high, dual, agg, kl in [
        (0.2, 0.28, 3.0, "token_mean", {}),
        (0.2, 0.28, 3.0, "sequence_mean", {}),
        (0.1, 0.1, None, "token_mean", {"tis_cap": None}),
        (0.2, 0.28, 1.2, "token_mean", {"tis_cap": 0.7}),
        (0.2, 0.28, 3.0, "token_mean", {"kl_coef": 0.3, "kl_kind": "k1"}),
        (0.2, 0.28, 3.0, "sequence_mean", {"kl_coef": 0.3, "kl_kind": "k2"}),
        (0.2, 0.28, None, "sequence_mean", {"kl_coef": 0.3, "kl_kind": "k3", "tis_cap": None}),
    ]
]


def random_microbatch(seed):
    """Two rows of three samples with old, reference and rollout log-probs that differ."""
    rng = np.random.default_rng(seed)
    mask = np.array([[0, 1, 1, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 0, 0]], float)
    logprobs = -rng.exponential(1.5, mask.shape)
    mb = tensors(
        mask,
        advantages_RL=rng.normal(size=mask.shape),
        rollout_logprobs_RL=(logprobs + rng.normal(0, 0.3, mask.shape)) * mask,
        sequence_weight_RL=mask * np.array([[1 / 2] * 4 + [1 / 3] * 4, [1 / 4] * 8]),
    )
    old = torch.tensor(logprobs + rng.normal(0, 0.5, mask.shape))
    ref = torch.tensor(logprobs + rng.normal(0, 0.5, mask.shape))
    return torch.tensor(logprobs, requires_grad=True), mb, old, ref


def finite_differences(function, at_RL, step=1e-6):
    gradient_RL = torch.zeros_like(at_RL)
    for index in np.ndindex(*at_RL.shape):
        values = []
        for sign in (1, -1):
            moved_RL = at_RL.detach().clone()
            moved_RL[index] += sign * step
            values.append(function(moved_RL))
        gradient_RL[index] = (values[0] - values[1]) / (2 * step)
    return gradient_RL


@pytest.mark.parametrize("objective", OPTIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_policy_gradient_is_the_finite_difference_of_the_loss(objective, seed):
    logprobs_RL, mb, old_RL, ref_RL = random_microbatch(seed)
    norm = LossDenominators(num_loss_tokens=9, num_samples=3)
    loss, metrics = objective(logprobs_RL, mb, old_RL, ref_RL, norm)
    (gradient_RL,) = torch.autograd.grad(loss, logprobs_RL)
    expected_RL = finite_differences(
        lambda x: objective(x, mb, old_RL, ref_RL, norm)[0].item(), logprobs_RL
    )
    torch.testing.assert_close(gradient_RL, expected_RL, rtol=1e-6, atol=1e-8)
    assert gradient_RL[mb.loss_mask_RL == 0].abs().max() == 0
    if objective.tis_cap != 0.7:
        assert 0 < metrics["policy/clip_frac"] < 1  # both sides of the clip are exercised


@pytest.mark.parametrize("objective", OPTIONS)
def test_loss_and_metrics_are_the_plain_formulas_token_by_token(objective):
    logprobs_RL, mb, old_RL, ref_RL = random_microbatch(seed=4)
    norm = LossDenominators(num_loss_tokens=9, num_samples=3)
    loss, metrics = objective(logprobs_RL, mb, old_RL, ref_RL, norm)
    expected_loss = 0.0
    sums = dict.fromkeys(("kl", "ref", "entropy", "mismatch"), 0.0)
    for index in zip(*np.nonzero(mb.loss_mask_RL.numpy()), strict=True):
        new, old, ref = (x[index].item() for x in (logprobs_RL, old_RL, ref_RL))
        advantage = mb.advantages_RL[index].item()
        ratio = math.exp(new - old)
        clipped = min(max(ratio, 1 - objective.clip_eps_low), 1 + objective.clip_eps_high)
        gain = min(ratio * advantage, clipped * advantage)
        if advantage < 0 and objective.dual_clip is not None:
            gain = max(gain, objective.dual_clip * advantage)
        mismatch = old - mb.rollout_logprobs_RL[index].item()
        if objective.tis_cap is not None:
            gain *= min(math.exp(mismatch), objective.tis_cap)
        kl = {
            "k1": new - ref,
            "k2": (new - ref) ** 2 / 2,
            "k3": math.exp(ref - new) - 1 + new - ref,
        }
        token_loss = -gain + objective.kl_coef * kl[objective.kl_kind]
        by_token = objective.aggregation == "token_mean"
        expected_loss += token_loss * (
            1 / 9 if by_token else mb.sequence_weight_RL[index].item() / 3
        )
        sums["kl"] += (ratio - 1 - (new - old)) / 9
        sums["ref"] += kl["k3"] / 9
        sums["entropy"] -= new / 9
        sums["mismatch"] += (math.exp(mismatch) - 1 - mismatch) / 9
    assert loss.item() == pytest.approx(expected_loss)
    found = {name: value.item() for name, value in metrics.items()}
    assert found["policy/approx_kl"] == pytest.approx(sums["kl"])
    assert found["policy/ref_kl"] == pytest.approx(sums["ref"])
    assert found["policy/entropy_proxy"] == pytest.approx(sums["entropy"])
    assert found["rollout/mismatch_kl"] == pytest.approx(sums["mismatch"])
    assert not any(value.requires_grad for value in metrics.values())


def test_without_old_logprobs_the_ratio_is_one_and_the_gradient_that_of_the_policy():
    logprobs_RL, mb, _, _ = random_microbatch(seed=5)
    loss, metrics = NO_CORRECTION(logprobs_RL, mb, None, None, LossDenominators(9, 3))
    (gradient_RL,) = torch.autograd.grad(loss, logprobs_RL)
    torch.testing.assert_close(gradient_RL, -mb.advantages_RL * mb.loss_mask_RL / 9)
    assert metrics["policy/clip_frac"] == 0
    assert metrics["policy/approx_kl"] == 0
    given_loss, _ = NO_CORRECTION(
        logprobs_RL, mb, logprobs_RL.detach(), None, LossDenominators(9, 3)
    )
    assert given_loss.item() == loss.item()


def test_metrics_are_present_exactly_when_they_mean_something():
    logprobs_RL, mb, old_RL, ref_RL = random_microbatch(seed=6)
    always = {
        "policy/loss",
        "policy/clip_frac",
        "policy/approx_kl",
        "policy/entropy_proxy",
        "rollout/mismatch_kl",
    }
    norm = LossDenominators(9, 3)
    assert NO_CORRECTION(logprobs_RL, mb, old_RL, None, norm)[1].keys() == always
    assert PolicyObjective()(logprobs_RL, mb, old_RL, ref_RL, norm)[1].keys() == always | {
        "policy/ref_kl",
        "policy/tis_capped_frac",
    }


def test_a_kl_penalty_without_reference_is_refused():
    logprobs_RL, mb, old_RL, _ = random_microbatch(seed=7)
    with pytest.raises(ValueError, match="needs reference log-probs"):
        PolicyObjective(kl_coef=0.1)(logprobs_RL, mb, old_RL, None, LossDenominators(9, 3))


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_what_stands_off_the_mask_never_reaches_loss_metrics_or_gradient(garbage):
    logprobs_RL, mb, old_RL, ref_RL = random_microbatch(seed=8)
    objective, norm = PolicyObjective(kl_coef=0.1), LossDenominators(9, 3)
    off_RL = mb.loss_mask_RL == 0
    clean_loss, clean_metrics = objective(logprobs_RL, mb, old_RL, ref_RL, norm)
    dirty = [x.detach().masked_fill(off_RL, garbage) for x in (logprobs_RL, old_RL, ref_RL)]
    dirty[0].requires_grad_()
    loss, metrics = objective(dirty[0], mb, dirty[1], dirty[2], norm)
    assert loss.item() == clean_loss.item()
    assert metrics == clean_metrics
    (gradient_RL,) = torch.autograd.grad(loss, dirty[0])
    assert gradient_RL.isfinite().all()
    assert gradient_RL[off_RL].abs().max() == 0


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("distance", [-500.0, 500.0])
def test_extreme_ratios_give_finite_losses_and_gradients_in_float32(advantage, distance):
    output_RL = torch.tensor([[distance]], requires_grad=True)
    one_RL = torch.ones(1, 1)
    mb = tensors([[1.0]])
    mb = dataclasses.replace(mb, loss_mask_RL=one_RL, advantages_RL=advantage * one_RL)
    objective = PolicyObjective(kl_coef=0.1)
    loss, metrics = objective(output_RL, mb, 0 * one_RL, 0 * one_RL, LossDenominators(1, 1))
    (gradient_RL,) = torch.autograd.grad(loss, output_RL)
    assert loss.isfinite()
    assert gradient_RL.isfinite().all()
    assert all(value.isfinite() for value in metrics.values())


@pytest.mark.parametrize(
    "objective", [PolicyObjective(), NllObjective(), PairObjective(centring=0.1)]
)
def test_a_microbatch_without_loss_tokens_adds_zero_and_still_runs_backward(objective):
    output_RL = torch.randn(1, 16, requires_grad=True)
    mb = build_minibatch(samples(2), 3, 64, 0, group_of=2).microbatches_by_rank[2][0]
    loss, metrics = objective(
        output_RL, MicrobatchTensors.from_microbatch(mb, "cpu"), None, None, LossDenominators(9, 2)
    )
    loss.backward()
    assert loss.item() == 0
    assert output_RL.grad is not None
    assert output_RL.grad.abs().max() == 0
    assert all(value.item() == 0 for value in metrics.values())


def test_nll_is_the_mean_negative_logprob_of_the_loss_tokens():
    logprobs_RL, mb, _, _ = random_microbatch(seed=9)
    loss, metrics = NllObjective()(logprobs_RL, mb, None, None, LossDenominators(9, 3))
    expected = -logprobs_RL[mb.loss_mask_RL > 0].sum() / 9
    assert loss.item() == pytest.approx(expected.item())
    assert metrics["warm/loss"] == loss.detach()


@pytest.mark.parametrize("centring", [0.0, 0.3])
def test_pair_loss_is_the_bradley_terry_formula_wherever_the_read_outs_lie(centring):
    scores_N = np.array([1.5, -0.5, 0.2, 0.9, -3.0, -3.0])
    # Row 0 holds samples 4, 5, 0 and 1, row 1 holds 3 before 2.
    where = {4: (0, 1), 5: (0, 2), 0: (0, 4), 1: (0, 5), 3: (1, 0), 2: (1, 3)}
    mask, index = np.zeros((2, 6)), np.full((2, 6), -1)
    outputs_RL = torch.full((2, 6), 77.0, dtype=torch.float64)
    for sample, place in where.items():
        mask[place], index[place] = 1.0, sample
        outputs_RL[place] = scores_N[sample]
    outputs_RL.requires_grad_()
    mb = tensors(mask, sample_index_RL=index)
    norm = LossDenominators(num_loss_tokens=6, num_samples=6)
    loss, metrics = PairObjective(centring=centring)(outputs_RL, mb, None, None, norm)
    chosen, rejected = scores_N[0::2], scores_N[1::2]
    bradley_terry = np.mean(np.log1p(np.exp(-(chosen - rejected))))
    centre = np.mean((chosen + rejected) ** 2)
    assert loss.item() == pytest.approx(bradley_terry + centring * centre)
    assert metrics["rm/loss"].item() == pytest.approx(bradley_terry)
    assert metrics["rm/accuracy"].item() == pytest.approx(1 / 3)  # one right, one wrong, one tie
    assert metrics["rm/margin"].item() == pytest.approx(np.mean(chosen - rejected))
    (gradient_RL,) = torch.autograd.grad(loss, outputs_RL)
    assert gradient_RL[mb.loss_mask_RL == 0].abs().max() == 0
    sigmoid = 1 / (1 + np.exp(chosen[0] - rejected[0]))
    slope = (-sigmoid + centring * 2 * (chosen[0] + rejected[0])) / 3
    assert gradient_RL[where[0]].item() == pytest.approx(slope)


def test_the_margin_moves_the_bradley_terry_loss_and_nothing_else():
    outputs_RL = torch.tensor([[2.0, 0.5]], dtype=torch.float64)
    mb = tensors([[1.0, 1.0]], sample_index_RL=[[0, 1]])
    loss, metrics = PairObjective(margin=1.0)(outputs_RL, mb, None, None, LossDenominators(2, 2))
    assert loss.item() == pytest.approx(np.log1p(np.exp(-(2.0 - 0.5 - 1.0))))
    assert metrics["rm/margin"].item() == pytest.approx(1.5)
    assert metrics["rm/accuracy"].item() == 1.0


def test_the_language_model_term_is_the_mean_over_its_tokens():
    outputs_RL = torch.tensor([[-1.0, -3.0, 2.0, 0.5]], dtype=torch.float64)
    mb = tensors(
        [[0.0, 0.0, 1.0, 1.0]], lm_mask_RL=[[1.0, 1.0, 0.0, 0.0]], sample_index_RL=[[0, 0, 0, 1]]
    )
    norm = LossDenominators(num_loss_tokens=2, num_samples=2)
    plain, _ = PairObjective()(outputs_RL, mb, None, None, norm)
    loss, metrics = PairObjective(lm_coef=0.25)(outputs_RL, mb, None, None, norm)
    assert metrics["rm/lm_loss"].item() == pytest.approx(2.0)
    assert (loss - plain).item() == pytest.approx(0.25 * 2.0)


@pytest.mark.parametrize("found", [[0], [1, 2], [0, 1, 3], [0, 0], [0, 2]])
def test_read_outs_that_are_not_whole_pairs_are_refused(found):
    mb = tensors([[1.0] * len(found)], sample_index_RL=[found])
    with pytest.raises(ValueError, match="preference pairs need"):
        PairObjective()(torch.zeros(1, len(found)), mb, None, None, LossDenominators(2, 2))


@pytest.mark.parametrize(
    "objective", [PolicyObjective(kl_coef=0.1), NllObjective(), PairObjective()]
)
def test_objectives_survive_pickling(objective):
    assert pickle.loads(pickle.dumps(objective)) == objective


def samples(num):
    return [
        Sample(
            prompt_id="p",
            sample_idx=idx,
            token_ids=np.arange(5 + idx, dtype=np.int32),
            num_prompt_tokens=2,
            rollout_logprobs=np.full(3 + idx, -0.5, np.float32),
            advantage=1.0,
            policy_version=0,
        )
        for idx in range(num)
    ]


def test_from_microbatch_copies_read_only_arrays_with_their_meaning(recwarn):
    (mb,) = build_minibatch(samples(3), 1, 64, 0).microbatches_by_rank[0]
    for field in dataclasses.fields(mb):
        getattr(mb, field.name).setflags(write=False)
    copied = MicrobatchTensors.from_microbatch(mb, "cpu")
    for field in dataclasses.fields(mb):
        array, tensor = getattr(mb, field.name), getattr(copied, field.name)
        np.testing.assert_array_equal(array, tensor.numpy())
        assert tensor.dtype == (torch.int64 if array.dtype == np.int32 else torch.float32)
    assert not recwarn.list
