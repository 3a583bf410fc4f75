"""Sums over samples against plain loops."""

import numpy as np
import pytest
import torch

from rl.terms.samples import at_level, mean_of_sample, rest_of_sample, sum_of_sample

pytestmark = pytest.mark.unit


def labels(seed, num=40):
    """Values of labels in random order of samples; some sample has none."""
    rng = np.random.default_rng(seed)
    index = rng.choice([0, 2, 3, 6], num)
    return torch.tensor(rng.normal(size=num)), torch.tensor(index)


@pytest.mark.parametrize("seed", [0, 1])
def test_sum_mean_and_rest_are_those_of_the_labels_of_the_sample(seed):
    values_M, index_M = labels(seed)
    values, index = values_M.tolist(), index_M.tolist()
    own = [[v for v, i in zip(values, index, strict=True) if i == at] for at in index]
    rest = [
        sum(v for v, i in zip(values[m:], index[m:], strict=True) if i == index[m])
        for m in range(len(index))
    ]
    torch.testing.assert_close(
        sum_of_sample(values_M, index_M),
        torch.tensor([sum(v) for v in own], dtype=torch.float64),
        rtol=1e-12,
        atol=1e-12,
    )
    torch.testing.assert_close(
        mean_of_sample(values_M, index_M),
        torch.tensor([sum(v) / len(v) for v in own], dtype=torch.float64),
        rtol=1e-12,
        atol=1e-12,
    )
    torch.testing.assert_close(
        rest_of_sample(values_M, index_M),
        torch.tensor(rest, dtype=torch.float64),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("over", [sum_of_sample, mean_of_sample, rest_of_sample])
def test_no_labels_have_no_sums(over):
    assert over(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_gradients_flow_to_every_label_of_the_sample():
    values_M = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    mean_of_sample(values_M, torch.tensor([4, 0, 4]))[0].backward()
    assert values_M.grad is not None
    assert values_M.grad.tolist() == [0.5, 0.0, 0.5]


def test_levels_are_the_token_the_product_and_the_geometric_mean():
    log_ratio_M = torch.tensor([0.1, 0.5, -0.3], dtype=torch.float64)
    index_M = torch.tensor([0, 1, 0])
    assert at_level(log_ratio_M, index_M, "token").tolist() == [0.1, 0.5, -0.3]
    assert at_level(log_ratio_M, index_M, "sequence").tolist() == pytest.approx([-0.2, 0.5, -0.2])
    assert at_level(log_ratio_M, index_M, "geometric").tolist() == pytest.approx([-0.1, 0.5, -0.1])
