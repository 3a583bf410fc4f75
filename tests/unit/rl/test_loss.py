"""The objectives against plain formulas, hand-computed values and finite differences."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch

from rl.loss import (
    DpoObjective,
    LossDenominators,
    MicrobatchTensors,
    NllObjective,
    Outputs,
    PairObjective,
    PolicyObjective,
)
from rl.packing import Packing, build_minibatch
from rl.types import Sample

pytestmark = pytest.mark.unit

NO_CORRECTION = PolicyObjective(tis_cap=None)


def tensors(num_labels, **fields):
    """Float64 microbatch of which only the given fields matter."""
    kinds = {"is_token_M": torch.bool, "sample_index_M": torch.int64}
    given = {
        name: torch.tensor(value, dtype=kinds.get(name, torch.float64))
        for name, value in fields.items()
    }
    names = [field.name for field in dataclasses.fields(MicrobatchTensors)]
    zeros_M = torch.zeros(num_labels, dtype=torch.float64)
    return MicrobatchTensors(**{**dict.fromkeys(names, zeros_M), **given})


def one_token(objective, *, logprob, old, advantage, rollout=None, ref=None, entropy=0.0):
    """Loss, gradient and metrics of a minibatch that is one token."""
    as_M = lambda x: None if x is None else torch.tensor([x], dtype=torch.float64)  # noqa: E731
    values_M = torch.tensor([logprob], dtype=torch.float64, requires_grad=True)
    mb = tensors(
        1,
        advantages_M=[advantage],
        rollout_logprobs_M=[old if rollout is None else rollout],
        sequence_weight_M=[1.0],
    )
    outputs = Outputs(values_M, torch.tensor([entropy], dtype=torch.float64))
    loss, metrics = objective(outputs, mb, as_M(old), as_M(ref), LossDenominators(1, 1))
    (gradient,) = torch.autograd.grad(loss, values_M)
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
        (0.2, 0.28, 3.0, "token_mean", {"entropy_coef": 0.2}),
        (0.2, 0.28, 3.0, "sequence_mean", {"entropy_coef": 0.2, "kl_coef": 0.3}),
    ]
]


def random_microbatch(seed):
    """Nine labels of three samples with old, reference and rollout log-probs that differ."""
    rng = np.random.default_rng(seed)
    logprobs_M = -rng.exponential(1.5, 9)
    mb = tensors(
        9,
        advantages_M=rng.normal(size=9),
        rollout_logprobs_M=logprobs_M + rng.normal(0, 0.3, 9),
        sequence_weight_M=[1 / 2] * 2 + [1 / 3] * 3 + [1 / 4] * 4,
    )
    old_M = torch.tensor(logprobs_M + rng.normal(0, 0.5, 9))
    ref_M = torch.tensor(logprobs_M + rng.normal(0, 0.5, 9))
    entropy_M = torch.tensor(rng.exponential(1.0, 9), requires_grad=True)
    return Outputs(torch.tensor(logprobs_M, requires_grad=True), entropy_M), mb, old_M, ref_M


def finite_differences(function, at_M, step=1e-6):
    gradient_M = torch.zeros_like(at_M)
    for index in range(len(at_M)):
        values = []
        for sign in (1, -1):
            moved_M = at_M.detach().clone()
            moved_M[index] += sign * step
            values.append(function(moved_M))
        gradient_M[index] = (values[0] - values[1]) / (2 * step)
    return gradient_M


@pytest.mark.parametrize("objective", OPTIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_policy_gradient_is_the_finite_difference_of_the_loss(objective, seed):
    outputs, mb, old_M, ref_M = random_microbatch(seed)
    norm = LossDenominators(num_loss_tokens=9, num_samples=3)
    loss, metrics = objective(outputs, mb, old_M, ref_M, norm)
    gradients = torch.autograd.grad(loss, outputs, materialize_grads=True)
    for name, at_M, gradient_M in zip(outputs._fields, outputs, gradients, strict=True):
        expected_M = finite_differences(
            lambda x, name=name: objective(outputs._replace(**{name: x}), mb, old_M, ref_M, norm)[
                0
            ].item(),
            at_M,
        )
        torch.testing.assert_close(gradient_M, expected_M, rtol=1e-6, atol=1e-8)
    if objective.tis_cap != 0.7:
        assert 0 < metrics["policy/clip_frac"] < 1  # both sides of the clip are exercised


@pytest.mark.parametrize("objective", OPTIONS)
def test_loss_and_metrics_are_the_plain_formulas_token_by_token(objective):
    outputs, mb, old_M, ref_M = random_microbatch(seed=4)
    norm = LossDenominators(num_loss_tokens=9, num_samples=3)
    loss, metrics = objective(outputs, mb, old_M, ref_M, norm)
    expected_loss = 0.0
    sums = dict.fromkeys(("kl", "ref", "entropy", "mismatch"), 0.0)
    for index in range(9):
        new, entropy, old, ref = (x[index].item() for x in (*outputs, old_M, ref_M))
        advantage = mb.advantages_M[index].item()
        ratio = math.exp(new - old)
        clipped = min(max(ratio, 1 - objective.clip_eps_low), 1 + objective.clip_eps_high)
        gain = min(ratio * advantage, clipped * advantage)
        if advantage < 0 and objective.dual_clip is not None:
            gain = max(gain, objective.dual_clip * advantage)
        mismatch = old - mb.rollout_logprobs_M[index].item()
        if objective.tis_cap is not None:
            gain *= min(math.exp(mismatch), objective.tis_cap)
        kl = {
            "k1": new - ref,
            "k2": (new - ref) ** 2 / 2,
            "k3": math.exp(ref - new) - 1 + new - ref,
        }
        token_loss = -gain + objective.kl_coef * kl[objective.kl_kind]
        token_loss -= objective.entropy_coef * entropy
        by_token = objective.aggregation == "token_mean"
        expected_loss += token_loss * (
            1 / 9 if by_token else mb.sequence_weight_M[index].item() / 3
        )
        sums["kl"] += (ratio - 1 - (new - old)) / 9
        sums["ref"] += kl["k3"] / 9
        sums["entropy"] += entropy / 9
        sums["mismatch"] += (math.exp(mismatch) - 1 - mismatch) / 9
    assert loss.item() == pytest.approx(expected_loss)
    found = {name: value.item() for name, value in metrics.items()}
    assert found["policy/approx_kl"] == pytest.approx(sums["kl"])
    assert found["policy/ref_kl"] == pytest.approx(sums["ref"])
    assert found["policy/entropy"] == pytest.approx(sums["entropy"])
    assert found["rollout/mismatch_kl"] == pytest.approx(sums["mismatch"])
    assert not any(value.requires_grad for value in metrics.values())


def test_without_old_logprobs_the_ratio_is_one_and_the_gradient_that_of_the_policy():
    outputs, mb, _, _ = random_microbatch(seed=5)
    loss, metrics = NO_CORRECTION(outputs, mb, None, None, LossDenominators(9, 3))
    (gradient_M,) = torch.autograd.grad(loss, outputs.values_M)
    torch.testing.assert_close(gradient_M, -mb.advantages_M / 9)
    assert metrics["policy/clip_frac"] == 0
    assert metrics["policy/approx_kl"] == 0
    given_loss, _ = NO_CORRECTION(
        outputs, mb, outputs.values_M.detach(), None, LossDenominators(9, 3)
    )
    assert given_loss.item() == loss.item()


def test_the_entropy_bonus_lowers_the_loss_and_nothing_else_weighs_it():
    objective = PolicyObjective(tis_cap=2.0, entropy_coef=0.5)
    loss, gradient, metrics = one_token(
        objective, logprob=-1.0, old=-1.0, advantage=0.0, rollout=-3.0, entropy=1.5
    )
    assert (loss, gradient) == (pytest.approx(-0.5 * 1.5), 0.0)
    assert metrics["policy/entropy"] == pytest.approx(1.5)


def test_metrics_are_present_exactly_when_they_mean_something():
    outputs, mb, old_M, ref_M = random_microbatch(seed=6)
    always = {
        "policy/loss",
        "policy/clip_frac",
        "policy/approx_kl",
        "policy/entropy",
        "rollout/mismatch_kl",
    }
    norm = LossDenominators(9, 3)
    assert NO_CORRECTION(outputs, mb, old_M, None, norm)[1].keys() == always
    assert PolicyObjective()(outputs, mb, old_M, ref_M, norm)[1].keys() == always | {
        "policy/ref_kl",
        "policy/tis_capped_frac",
    }


def test_a_kl_penalty_without_reference_is_refused():
    outputs, mb, old_M, _ = random_microbatch(seed=7)
    with pytest.raises(ValueError, match="needs reference log-probs"):
        PolicyObjective(kl_coef=0.1)(outputs, mb, old_M, None, LossDenominators(9, 3))


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("distance", [-500.0, 500.0])
def test_extreme_ratios_give_finite_losses_and_gradients_in_float32(advantage, distance):
    values_M = torch.tensor([distance], requires_grad=True)
    one_M = torch.ones(1)
    mb = dataclasses.replace(tensors(1), advantages_M=advantage * one_M)
    objective = PolicyObjective(kl_coef=0.1)
    outputs = Outputs(values_M, one_M)
    loss, metrics = objective(outputs, mb, 0 * one_M, 0 * one_M, LossDenominators(1, 1))
    (gradient_M,) = torch.autograd.grad(loss, values_M)
    assert loss.isfinite()
    assert gradient_M.isfinite().all()
    assert all(value.isfinite() for value in metrics.values())


@pytest.mark.parametrize(
    "objective",
    [
        PolicyObjective(),
        PolicyObjective(entropy_coef=0.1),
        NllObjective(),
        PairObjective(centring=0.1),
        DpoObjective(reference="start"),
    ],
)
def test_a_microbatch_without_labels_adds_zero_and_still_runs_backward(objective):
    hidden = torch.randn(16, requires_grad=True)
    packing = Packing(num_ranks=3, microbatch_tokens=64)
    idle = build_minibatch(samples(2), packing, group_of=2).microbatches_by_rank[2][0]
    mb = MicrobatchTensors.from_microbatch(idle, "cpu")
    outputs = Outputs(hidden[mb.place_M], hidden[mb.place_M])
    loss, metrics = objective(outputs, mb, None, None, LossDenominators(9, 2))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert hidden.grad.abs().max() == 0
    assert all(value.item() == 0 for value in metrics.values())


def test_nll_is_the_mean_negative_logprob_of_the_labels():
    outputs, mb, _, _ = random_microbatch(seed=9)
    loss, metrics = NllObjective()(outputs, mb, None, None, LossDenominators(9, 3))
    assert loss.item() == pytest.approx(-outputs.values_M.sum().item() / 9)
    assert metrics["warm/loss"] == loss.detach()


def scores(values, sample_index, is_token_M=None):
    """Outputs that are scores of these samples, but where they are tokens; and their microbatch."""
    is_token_M = is_token_M or [False] * len(values)
    values_M = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    mb = tensors(len(values), sample_index_M=sample_index, is_token_M=is_token_M)
    return Outputs(values_M, torch.zeros_like(values_M)), mb


@pytest.mark.parametrize("centring", [0.0, 0.3])
def test_pair_loss_is_the_bradley_terry_formula_wherever_the_read_outs_lie(centring):
    scores_N = np.array([1.5, -0.5, 0.2, 0.9, -3.0, -3.0])
    index_M = [4, 5, 0, 1, 3, 2]  # sample 3 stands before sample 2
    outputs, mb = scores(scores_N[index_M], index_M)
    norm = LossDenominators(num_loss_tokens=6, num_samples=6)
    loss, metrics = PairObjective(centring=centring)(outputs, mb, None, None, norm)
    chosen, rejected = scores_N[0::2], scores_N[1::2]
    bradley_terry = np.mean(np.log1p(np.exp(-(chosen - rejected))))
    centre = np.mean((chosen + rejected) ** 2)
    assert loss.item() == pytest.approx(bradley_terry + centring * centre)
    assert metrics["rm/loss"].item() == pytest.approx(bradley_terry)
    assert metrics["rm/accuracy"].item() == pytest.approx(1 / 3)  # one right, one wrong, one tie
    assert metrics["rm/margin"].item() == pytest.approx(np.mean(chosen - rejected))
    (gradient_M,) = torch.autograd.grad(loss, outputs.values_M)
    sigmoid = 1 / (1 + np.exp(chosen - rejected))
    centre_N = centring * 2 * (chosen + rejected)
    expected_N = np.stack([-sigmoid + centre_N, sigmoid + centre_N], axis=1).flatten() / 3
    np.testing.assert_allclose(gradient_M, expected_N[index_M])


def test_the_margin_moves_the_bradley_terry_loss_and_nothing_else():
    outputs, mb = scores([2.0, 0.5], [0, 1])
    loss, metrics = PairObjective(margin=1.0)(outputs, mb, None, None, LossDenominators(2, 2))
    assert loss.item() == pytest.approx(np.log1p(np.exp(-(2.0 - 0.5 - 1.0))))
    assert metrics["rm/margin"].item() == pytest.approx(1.5)
    assert metrics["rm/accuracy"].item() == 1.0


def test_the_language_model_term_is_the_mean_over_its_tokens_and_no_score_is_one_of_them():
    outputs, mb = scores(
        [-1.0, -3.0, 2.0, 0.5], [0, 0, 0, 1], is_token_M=[True, True, False, False]
    )
    norm = LossDenominators(num_loss_tokens=2, num_samples=2)
    plain, _ = PairObjective()(outputs, mb, None, None, norm)
    loss, metrics = PairObjective(lm_coef=0.25)(outputs, mb, None, None, norm)
    assert plain.item() == pytest.approx(np.log1p(np.exp(-(2.0 - 0.5))))
    assert metrics["rm/lm_loss"].item() == pytest.approx(2.0)
    assert (loss - plain).item() == pytest.approx(0.25 * 2.0)
    (gradient_M,) = torch.autograd.grad(plain, outputs.values_M)
    assert gradient_M[:2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("found", [[0], [1, 2], [0, 1, 3], [0, 0], [0, 2]])
def test_scores_that_are_not_whole_pairs_are_refused(found):
    outputs, mb = scores([0.0] * len(found), found)
    with pytest.raises(ValueError, match="preference pairs need"):
        PairObjective()(outputs, mb, None, None, LossDenominators(2, 2))


@pytest.mark.parametrize(
    "objective",
    [PolicyObjective(kl_coef=0.1), NllObjective(), PairObjective(), DpoObjective(beta=0.2)],
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


@pytest.mark.parametrize("share_prefix", ["on", "off"])
def test_from_microbatch_copies_read_only_arrays_with_their_meaning(recwarn, share_prefix):
    packing = Packing(num_ranks=1, microbatch_tokens=64, share_prefix=share_prefix)
    (mb,) = build_minibatch(samples(3), packing).microbatches_by_rank[0]
    assert (mb.subtree_end_RL is None) == (share_prefix == "off")
    kinds = {np.int32: torch.int64, np.float32: torch.float32, np.bool_: torch.bool}
    arrays = {field.name: getattr(mb, field.name) for field in dataclasses.fields(mb)}
    for array in arrays.values():
        if array is not None:
            array.setflags(write=False)
    copied = MicrobatchTensors.from_microbatch(mb, "cpu")
    for name, array in arrays.items():
        tensor = getattr(copied, name)
        if array is None:
            assert tensor is None
            continue
        np.testing.assert_array_equal(array, tensor.numpy())
        assert tensor.dtype == kinds[array.dtype.type]
    assert not recwarn.list
