"""Every published loss against its formula, sample by sample, however samples are packed."""

import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rl.loss import LossDenominators, MicrobatchTensors, Outputs, PolicyObjective
from rl.packing import Packing, build_minibatch
from rl.terms.surrogate import gated
from rl.types import Sample

pytestmark = pytest.mark.unit

MAX_TOKENS = 10
NUM_SAMPLES = 8
PURE = PolicyObjective(clip_eps_low=0.2, clip_eps_high=0.2, dual_clip=None, tis_cap=None)


def samples():
    """Two prompts of four completions, some with a common beginning; 1 / length is exact."""
    rng = np.random.default_rng(3)
    made = []
    for index, size in enumerate([8, 4, 8, 1, 2, 8, 4, 4]):
        prompt = np.arange(1, 4 + index // 4 * 2)
        stem = np.arange(20, 20 + min(size - 1, 3))
        tail = rng.integers(30, 60, size - stem.size)
        tokens = np.concatenate([prompt, stem, tail]).astype(np.int32)
        made.append(
            Sample(
                prompt_id=f"p{index // 4}",
                sample_idx=index % 4,
                token_ids=tokens,
                num_prompt_tokens=prompt.size,
                rollout_logprobs=-rng.exponential(1, size).astype(np.float32),
                advantage=float(np.float32(rng.normal())),
                policy_version=0,
            )
        )
    return made


SAMPLES = samples()


def values(seed, spread):
    """Numbers of each token that differ from what the engine sampled."""
    rng = np.random.default_rng(seed)
    return [
        torch.tensor(s.rollout_logprobs + rng.normal(0, spread, s.rollout_logprobs.size)).double()
        for s in SAMPLES
    ]


OLD = values(0, 0.3)
REF = values(1, 0.5)
ENTROPY = [1 + v.abs() for v in values(2, 0.3)]


def new_policy():
    """Log-probs of the policy that is trained: the leaves of every gradient."""
    return [v.requires_grad_() for v in values(4, 0.5)]


PACKINGS = [
    Packing(num_ranks=ranks, microbatch_tokens=tokens, row_tokens=row, share_prefix=share_prefix)
    for ranks, tokens, row in [(1, 512, 0), (1, 24, 12), (3, 30, 0)]
    for share_prefix in ("on", "off")
]


def at_labels(mb, numbers):
    """Numbers of each sample's tokens in the order of a microbatch's labels."""
    taken = dict.fromkeys(range(NUM_SAMPLES), 0)
    picked = []
    for index in mb.sample_index_M.tolist():
        picked.append(numbers[index][taken[index]])
        taken[index] += 1
    return torch.stack(picked) if picked else torch.zeros(0, dtype=torch.float64)


def found(objective, how):
    """Loss, gradient of each token's log-prob, and metrics, over all ranks and microbatches."""
    minibatch = build_minibatch(SAMPLES, how)
    norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
    new = new_policy()
    loss, totals = torch.zeros((), dtype=torch.float64), {}
    for microbatch in (mb for rank in minibatch.microbatches_by_rank for mb in rank):
        mb = MicrobatchTensors.from_microbatch(microbatch, "cpu")
        floats = ("advantages_M", "rollout_logprobs_M", "sequence_weight_M")
        mb = replace(mb, **{name: getattr(mb, name).double() for name in floats})
        outputs = Outputs(at_labels(mb, new), at_labels(mb, ENTROPY))
        share, metrics = objective(outputs, mb, at_labels(mb, OLD), at_labels(mb, REF), norm)
        loss = loss + share
        totals = {name: totals.get(name, 0.0) + v.item() for name, v in metrics.items()}
    return loss.item(), torch.autograd.grad(loss, new), totals


@dataclasses.dataclass
class One:
    """A sample as a formula sees it."""

    new: torch.Tensor  # log-probs, with gradient
    old: torch.Tensor
    ref: torch.Tensor
    engine: torch.Tensor
    A: float

    @property
    def r(self):
        return (self.new - self.old).exp()

    @property
    def T(self):
        return len(self.new)


def tokens_mean(gain):
    """- (1 / all tokens) * the sum of a gain over all tokens (DAPO, CISPO)."""
    return lambda ones: -sum(gain(one).sum() for one in ones) / sum(one.T for one in ones)


def samples_mean(gain):
    """- the mean over samples of the mean over their tokens (GRPO, SAPO)."""
    return lambda ones: -sum(gain(one).sum() / one.T for one in ones) / len(ones)


def clip_gain(ratio, A, low, high):
    return torch.minimum(ratio * A, ratio.clamp(1 - low, 1 + high) * A)


def gspo(low, high):
    def loss(ones):
        gains = []
        for one in ones:
            s = (one.r.prod()) ** (1 / one.T)
            gains.append(clip_gain(s, one.A, low, high))
        return -sum(gains) / len(ones)

    return loss


def dr_grpo(ones):
    gains = [clip_gain(one.r, one.A, 0.2, 0.2).sum() for one in ones]
    return -sum(gains) / (len(ones) * MAX_TOKENS)


def cispo(one):
    weight = one.r.detach().clamp(0, 1 + 0.3)
    return weight * one.A * one.new


def sapo(one):
    tau = 1.0 if one.A > 0 else 1.05
    return 4 / tau / (1 + torch.exp(-tau * (one.r - 1))) * one.A


def reinforce(one):
    return one.A * one.r


def tis(level, cap):
    def gain(one):
        ratios = (one.old - one.engine).exp()
        weight = {
            "token": ratios,
            "sequence": ratios.prod().expand(one.T),
            "geometric": (ratios.prod() ** (1 / one.T)).expand(one.T),
        }[level]
        return clip_gain(one.r, one.A, 0.2, 0.2) * weight.clamp(max=cap)

    return gain


def mask(level, bound):
    def gain(one):
        ratios = (one.old - one.engine).exp()
        ratio = {
            "token": ratios,
            "sequence": ratios.prod(),
            "geometric": ratios.prod() ** (1 / one.T),
        }[level]
        inside = (ratio >= 1 / bound) & (ratio <= bound)
        return torch.where(inside, clip_gain(one.r, one.A, 0.2, 0.2), 0.0)

    return gain


def icepop(one):
    ratios = (one.old - one.engine).exp()
    inside = (ratios >= 1 / 1.3) & (ratios <= 1.3)
    return torch.where(inside, ratios, 0.0) * clip_gain(one.r, one.A, 0.2, 0.2)


def clip_at_a_fifth(one):
    return clip_gain(one.r, one.A, 0.2, 0.2)


def with_kl_expectation(ones):
    """PPO with the reverse KL of whole completions: REINFORCE on what is still to come."""
    total = 0.0
    for one in ones:
        d = one.new - one.ref
        for t in range(one.T):
            to_come = d[t:].detach().sum()
            penalty = d[t] + to_come * (one.new[t] - one.new[t].detach())
            total = total - clip_gain(one.r, one.A, 0.2, 0.2)[t] + 0.3 * penalty
    return total / sum(one.T for one in ones)


LEVELS = ("token", "sequence", "geometric")
LOSSES = {
    "ppo": (PURE, tokens_mean(clip_at_a_fifth)),
    "grpo": (
        replace(PURE, aggregation="sequence_mean"),
        samples_mean(clip_at_a_fifth),
    ),
    "dr_grpo": (
        replace(PURE, aggregation="constant", constant_tokens=NUM_SAMPLES * MAX_TOKENS),
        dr_grpo,
    ),
    "gspo": (
        replace(
            PURE,
            clip_eps_low=0.05,
            clip_eps_high=0.08,
            ratio_level="geometric",
            aggregation="sequence_mean",
        ),
        gspo(0.05, 0.08),
    ),
    "cispo": (
        replace(
            PURE,
            surrogate="cispo",
            clip_eps_low=1.0,
            clip_eps_high=0.3,
        ),
        tokens_mean(cispo),
    ),
    "sapo": (
        replace(
            PURE,
            surrogate="sapo",
            aggregation="sequence_mean",
        ),
        samples_mean(sapo),
    ),
    "reinforce": (  # clip ranges that bind nowhere
        replace(
            PURE,
            clip_eps_low=1.0,
            clip_eps_high=1e6,
        ),
        tokens_mean(reinforce),
    ),
    **{
        f"tis_{level}": (
            replace(PURE, tis_cap=cap, tis_level=level),
            tokens_mean(tis(level, cap)),
        )
        for level, cap in zip(LEVELS, (1.2, 1.2, 1.05), strict=True)
    },
    **{
        f"mask_{level}": (
            replace(PURE, mismatch_bound=bound, mismatch_level=level),
            tokens_mean(mask(level, bound)),
        )
        for level, bound in zip(LEVELS, (1.3, 2.0, 1.15), strict=True)
    },
    "icepop": (
        replace(PURE, tis_cap=1.3, mismatch_bound=1.3, mismatch_level="token"),
        tokens_mean(icepop),
    ),
    "kl_expectation": (
        replace(PURE, kl_coef=0.3, kl_kind="k1", kl_gradient="expectation"),
        with_kl_expectation,
    ),
}


@pytest.mark.parametrize("how", PACKINGS)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_the_published_formula(name, how):
    objective, formula = LOSSES[name]
    new = new_policy()
    ones = [
        One(log_p, old, ref, torch.tensor(sample.rollout_logprobs).double(), sample.advantage)
        for log_p, old, ref, sample in zip(new, OLD, REF, SAMPLES, strict=True)
    ]
    expected = formula(ones)
    expected_gradients = torch.autograd.grad(expected, new)
    loss, gradients, _ = found(objective, how)
    assert loss == pytest.approx(expected.item(), abs=1e-10)
    for gradient_T, expected_T in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient_T, expected_T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("sapo", "reinforce")])
def test_every_bound_binds_somewhere_and_not_everywhere(name):
    """Else the test above would compare formulas where they do not differ."""
    _, _, metrics = found(LOSSES[name][0], PACKINGS[0])
    shares = {
        "policy/clip_frac": True,
        "policy/tis_capped_frac": name.startswith(("tis", "icepop")),
        "policy/mismatch_masked_frac": name.startswith(("mask", "icepop")),
    }
    for metric, present in shares.items():
        assert (metric in metrics) == present
        if present:
            assert 0 < metrics[metric] < 1


def test_a_soft_gate_has_no_clipped_share():
    _, _, metrics = found(LOSSES["sapo"][0], PACKINGS[0])
    assert "policy/clip_frac" not in metrics


@pytest.mark.parametrize("name", ["ppo", "grpo", "dr_grpo", "gspo", "cispo", "sapo"])
def test_before_the_policy_moves_every_surrogate_is_the_policy_gradient(name):
    """Of the same aggregation; only with several minibatches a step do they differ."""
    objective, _ = LOSSES[name]
    (mb,) = build_minibatch(SAMPLES, PACKINGS[0]).microbatches_by_rank[0]
    mb = MicrobatchTensors.from_microbatch(mb, "cpu")
    new = new_policy()
    outputs = Outputs(at_labels(mb, new), at_labels(mb, ENTROPY))
    norm = LossDenominators(sum(map(len, new)), NUM_SAMPLES)
    gradients = torch.autograd.grad(objective(outputs, mb, None, None, norm)[0], new)
    for sample, gradient_T in zip(SAMPLES, gradients, strict=True):
        size = {
            "token_mean": norm.num_loss_tokens,
            "sequence_mean": len(gradient_T) * NUM_SAMPLES,
            "constant": NUM_SAMPLES * MAX_TOKENS,
        }[objective.aggregation]
        expected_T = torch.full_like(gradient_T, -sample.advantage / size)
        torch.testing.assert_close(gradient_T, expected_T, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(("advantage", "tau"), [(1.5, 1.0), (-1.5, 1.05)])
def test_the_gate_fades_as_its_docstring_says(ratio, advantage, tau):
    log_M = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    advantages_M = torch.tensor([advantage], dtype=torch.float64)
    gated(log_M.exp(), advantages_M, tau_pos=1.0, tau_neg=1.05).gain_M.sum().backward()
    factor = ratio / math.cosh(tau * (ratio - 1) / 2) ** 2
    assert log_M.grad is not None
    assert log_M.grad.item() == pytest.approx(advantage * factor, rel=1e-12)
