"""Correction for engines that sampled from other probabilities than the trainer computes.

They compute with other kernels and in other precision, and with `max_staleness` above 0 from older
weights. The ratio is that of the trainer over the engine, at the level of tokens, of whole
completions or of their geometric mean (`rl.terms.samples.at_level`).

Axes: M labels.
"""

from __future__ import annotations

import math

from torch import Tensor

from conf.schema import Level
from rl.terms.kl import bounded
from rl.terms.samples import at_level


def weighed(
    gain_M: Tensor, log_ratio_M: Tensor, sample_index_M: Tensor, *, cap: float, level: Level
) -> tuple[Tensor, Tensor]:
    """The gain times min(ratio, cap), and where the cap decides.

    Truncated importance sampling: of tokens (Espeholt et al., arXiv 1802.01561, as in Yao et al.,
    "Your efficient RL framework secretly brings you off-policy RL training", 2025), or of whole
    completions (Liu et al., "When speed kills stability", 2025).
    """
    weight_M = bounded(at_level(log_ratio_M, sample_index_M, level)).exp()
    return gain_M * weight_M.clamp(max=cap), weight_M > cap


def masked(
    gain_M: Tensor, log_ratio_M: Tensor, sample_index_M: Tensor, *, bound: float, level: Level
) -> tuple[Tensor, Tensor]:
    """The gain, 0 where the ratio is outside [1 / bound, bound]; and where that is.

    Masks of completions, by their ratio or its geometric mean, are those of Liu et al. (2025); the
    mask of tokens, together with weights of tokens under the same cap, is IcePop
    (arXiv 2510.18855). Denominators stay what they are.
    """
    outside_M = at_level(log_ratio_M, sample_index_M, level).abs() > math.log(bound)
    return gain_M.masked_fill(outside_M, 0.0), outside_M
