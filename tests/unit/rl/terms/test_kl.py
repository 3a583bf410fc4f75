"""Gradients of the KL penalty on tiny models, in expectation over all that can be sampled."""

import itertools

import pytest
import torch

from rl.terms.kl import kl_estimate, kl_penalty

pytestmark = pytest.mark.unit

V, T = 3, 3  # tokens of the vocabulary, tokens of a completion


def model(seed):
    """Logits of the next token after each beginning of a completion."""
    generator = torch.Generator().manual_seed(seed)
    beginnings = [b for n in range(T) for b in itertools.product(range(V), repeat=n)]
    return {b: torch.randn(V, dtype=torch.float64, generator=generator) for b in beginnings}


def logprobs(table, tokens):
    return torch.stack([table[tokens[:t]].log_softmax(0)[token] for t, token in enumerate(tokens)])


def gradients(loss, table):
    return torch.cat(
        [
            torch.zeros(V, dtype=torch.float64) if g is None else g
            for g in torch.autograd.grad(loss, list(table.values()), allow_unused=True)
        ]
    )


def expected_gradient(policy, reference, kind, gradient):
    """Mean over every completion, as often as the policy samples it, of its penalty's gradient."""
    total = torch.zeros((), dtype=torch.float64)
    for tokens in itertools.product(range(V), repeat=T):
        logprobs_M, ref_M = logprobs(policy, tokens), logprobs(reference, tokens).detach()
        sampled = logprobs_M.detach().sum().exp()
        index_M = torch.zeros(T, dtype=torch.int64)
        penalty_M = kl_penalty(logprobs_M, ref_M, index_M, kind, gradient)
        total = total + sampled * gradients(penalty_M.sum(), policy)
    return total


def exact_gradient(policy, reference):
    """Of KL(policy || reference) over whole completions, by its definition."""
    divergence = torch.zeros((), dtype=torch.float64)
    for tokens in itertools.product(range(V), repeat=T):
        log_p, log_q = logprobs(policy, tokens).sum(), logprobs(reference, tokens).sum()
        divergence = divergence + log_p.exp() * (log_p - log_q)
    return gradients(divergence, policy)


@pytest.fixture
def policy():
    return {beginning: logits.requires_grad_() for beginning, logits in model(0).items()}


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_the_expectation_has_the_gradient_of_the_reverse_kl_of_whole_completions(policy, kind):
    reference = model(1)
    found = expected_gradient(policy, reference, kind, "expectation")
    torch.testing.assert_close(found, exact_gradient(policy, reference), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_no_estimator_alone_has_it(policy, kind):
    reference = model(1)
    found = expected_gradient(policy, reference, kind, "estimator")
    assert (found - exact_gradient(policy, reference)).abs().max() > 0.05
    if kind == "k1":
        torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)


def test_k2_has_the_gradient_of_the_next_tokens_kl_at_beginnings_taken_as_given(policy):
    reference = model(1)
    divergence = torch.zeros((), dtype=torch.float64)
    for beginning, logits in policy.items():
        weight = logprobs(policy, beginning).sum().exp().detach() if beginning else 1.0
        p, q = logits.log_softmax(0), reference[beginning].log_softmax(0)
        divergence = divergence + weight * (p.exp() * (p - q)).sum()
    torch.testing.assert_close(
        expected_gradient(policy, reference, "k2", "estimator"),
        gradients(divergence, policy),
        rtol=0,
        atol=1e-10,
    )


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_the_gradient_is_chosen_and_the_value_stays(kind):
    logprobs_M = torch.tensor([-1.0, -0.3, -2.0], dtype=torch.float64)
    ref_M = torch.tensor([-0.5, -0.9, -1.0], dtype=torch.float64)
    found_M = kl_penalty(logprobs_M, ref_M, torch.tensor([0, 0, 1]), kind, "expectation")
    assert torch.equal(found_M, kl_estimate(logprobs_M, ref_M, kind))


def test_expected_gradients_at_one_token_are_those_that_the_docstring_states():
    generator = torch.Generator().manual_seed(0)
    logits_V = torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_()
    ref_V = torch.randn(6, dtype=torch.float64, generator=generator).log_softmax(0)

    def gradient(value):
        return torch.autograd.grad(value, logits_V)[0]

    def expected_gradient(kind):
        logprobs_V = logits_V.log_softmax(0)
        sampled_V = logprobs_V.detach().exp()  # how often each token is sampled: no gradient
        return gradient((sampled_V * kl_estimate(logprobs_V, ref_V, kind)).sum())

    logprobs_V = logits_V.log_softmax(0)
    reverse = gradient((logprobs_V.exp() * (logprobs_V - ref_V)).sum())
    forward = gradient((ref_V.exp() * (ref_V - logits_V.log_softmax(0))).sum())
    torch.testing.assert_close(expected_gradient("k1"), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(expected_gradient("k2"), reverse)
    torch.testing.assert_close(expected_gradient("k3"), forward)
