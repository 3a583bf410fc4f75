"""Sums over the labels of each sample, given at its labels.

A sample stands in one microbatch as a whole, and its labels come in the order of its tokens, so
what a loss asks of a whole completion is computed without a look at other microbatches.

Axes: M labels, N samples of the minibatch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conf.schema import Level


def sums_of_samples(values_M: Tensor, sample_index_M: Tensor) -> Tensor:
    """The sum over the labels of each sample [N], 0 for one without any here.

    >>> sums_of_samples(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2])).tolist()
    [2.0, 0.0, 5.0]
    """
    zeros_N = values_M.new_zeros(len(torch.bincount(sample_index_M)))
    return zeros_N.index_add(0, sample_index_M, values_M)


def sum_of_sample(values_M: Tensor, sample_index_M: Tensor) -> Tensor:
    """At each label the sum over all labels of its sample.

    >>> sum_of_sample(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([7, 3, 7])).tolist()
    [5.0, 2.0, 5.0]
    """
    return sums_of_samples(values_M, sample_index_M)[sample_index_M]


def mean_of_sample(values_M: Tensor, sample_index_M: Tensor) -> Tensor:
    """At each label the mean over all labels of its sample."""
    counts_M = sum_of_sample(torch.ones_like(values_M), sample_index_M)
    return sum_of_sample(values_M, sample_index_M) / counts_M


def rest_of_sample(values_M: Tensor, sample_index_M: Tensor) -> Tensor:
    """At each label the sum over itself and the later labels of its sample.

    >>> rest_of_sample(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([7, 3, 7])).tolist()
    [5.0, 2.0, 4.0]
    """
    order_M = sample_index_M.argsort(stable=True)
    ends_N = torch.bincount(sample_index_M).cumsum(0).cpu()
    rest_M = torch.empty_like(values_M)
    for labels in order_M.tensor_split(ends_N):
        rest_M[labels] = values_M[labels].flip(0).cumsum(0).flip(0)
    return rest_M


def at_level(log_ratio_M: Tensor, sample_index_M: Tensor, level: Level) -> Tensor:
    """The log of a ratio of probabilities: of tokens, of whole completions, or of their mean token.

    `sequence` is the log of the ratio of the completions' probabilities, the sum over tokens;
    `geometric` is that sum over the number of tokens, so that long completions are not further
    from 1 than short ones. Both are the same at every label of a sample.
    """
    if level == "token":
        return log_ratio_M
    over = sum_of_sample if level == "sequence" else mean_of_sample
    return over(log_ratio_M, sample_index_M)
