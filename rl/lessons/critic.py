"""Critic: what a problem is worth before anybody has answered it, guessed from its words.

A small feed-forward net on hashed words, one hidden layer, trained by Adam on the squared error.
It is a value: learning gives another one, and all of it is plain JSON.

Axes: N problems, F features, H hidden units.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]

_WORD = re.compile(r"\w+|[^\w\s]")
_NUM_FEATURES = 512
_FIRST_DECAY, _SECOND_DECAY, _TINY = 0.9, 0.999, 1e-8  # Adam's own (arXiv 1412.6980)


class _Net(NamedTuple):
    """Views of the weights."""

    into_FH: _Array
    bias_H: _Array
    out_H: _Array
    bias: _Array  # of one number


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Critic:
    """The weights of all layers in one row, and the moments that Adam keeps of their gradients."""

    num_units: int
    weights: _Array
    first: _Array
    second: _Array
    num_updates: int = 0

    @classmethod
    def new(cls, num_units: int, seed: int) -> Self:
        """A critic that says 0 of everything; the seed decides its hidden units."""
        weights = np.zeros(_NUM_FEATURES * num_units + 2 * num_units + 1)
        into_FH = _net(weights, num_units).into_FH
        into_FH[:] = np.random.default_rng(seed).normal(size=into_FH.shape)
        nothing = np.zeros_like(weights)
        return cls(num_units=num_units, weights=weights, first=nothing, second=nothing)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        """The critic that was stored."""
        rows = {name: np.array(stored[name], np.float64) for name in ("weights", "first", "second")}
        return cls(num_units=stored["num_units"], num_updates=stored["num_updates"], **rows)

    def stored(self) -> dict[str, Any]:
        """Plain JSON, exact."""
        return {
            "num_units": self.num_units,
            "num_updates": self.num_updates,
            "weights": self.weights.tolist(),
            "first": self.first.tolist(),
            "second": self.second.tolist(),
        }

    def values(self, questions_N: Sequence[str]) -> _Array:
        """The reward that is expected of an answer to each."""
        net = _net(self.weights, self.num_units)
        return _hidden(net, _features(questions_N)) @ net.out_H + net.bias

    def learned(
        self, questions_N: Sequence[str], rewards_N: _Array, *, lr: float, passes: int
    ) -> Self:
        """The critic after so many updates, each on all of these."""
        features_NF = _features(questions_N)
        critic = self
        for _ in range(passes if len(questions_N) else 0):
            critic = critic._updated(critic._gradient(features_NF, rewards_N), lr)
        return critic

    def _gradient(self, features_NF: _Array, rewards_N: _Array) -> _Array:
        """Of half the mean squared error."""
        net = _net(self.weights, self.num_units)
        hidden_NH = _hidden(net, features_NF)
        error_N = (hidden_NH @ net.out_H + net.bias - rewards_N) / len(rewards_N)
        before_NH = np.outer(error_N, net.out_H) * (1 - hidden_NH**2)
        parts = (features_NF.T @ before_NH, before_NH.sum(0), hidden_NH.T @ error_N, error_N.sum())
        return np.concatenate([np.ravel(part) for part in parts])

    def _updated(self, gradient: _Array, lr: float) -> Self:
        number = self.num_updates + 1
        first = _FIRST_DECAY * self.first + (1 - _FIRST_DECAY) * gradient
        second = _SECOND_DECAY * self.second + (1 - _SECOND_DECAY) * gradient**2
        step = first / (1 - _FIRST_DECAY**number)
        step /= np.sqrt(second / (1 - _SECOND_DECAY**number)) + _TINY
        return type(self)(
            num_units=self.num_units,
            weights=self.weights - lr * step,
            first=first,
            second=second,
            num_updates=number,
        )


def r_squared(rewards_N: _Array, values_N: _Array) -> float | None:
    """Share of the variance of rewards that values explain; None where there is none.

    Below 0 the mean of these very rewards would have been the better guess.

    >>> r_squared(np.array([0.0, 1.0]), np.array([0.25, 0.75]))
    0.75
    """
    spread = np.square(rewards_N - rewards_N.mean()).sum() if rewards_N.size else 0.0
    return float(1 - np.square(rewards_N - values_N).sum() / spread) if spread else None


def _net(weights: _Array, num_units: int) -> _Net:
    into, bias, out, last = np.split(weights, [-2 * num_units - 1, -num_units - 1, -1])
    return _Net(into.reshape(-1, num_units), bias, out, last)


def _hidden(net: _Net, features_NF: _Array) -> _Array:
    return np.tanh(features_NF @ net.into_FH + net.bias_H)


def _features(questions_N: Sequence[str]) -> _Array:
    """How often each word and each two neighbours occur, by hash, as a row of length 1."""
    features_NF = np.zeros((len(questions_N), _NUM_FEATURES))
    for row, question in enumerate(questions_N):
        words = _WORD.findall(question.lower())
        for text in [*words, *(f"{one} {other}" for one, other in pairwise(words))]:
            features_NF[row, zlib.crc32(text.encode()) % _NUM_FEATURES] += 1
    return features_NF / np.maximum(1.0, np.linalg.norm(features_NF, axis=1, keepdims=True))
