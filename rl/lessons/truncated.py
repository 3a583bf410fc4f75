"""Completions that ran out of budget: what they teach.

A judge sees an answer that was cut off, mostly without a closed block of code, and its score says
how long the answer was rather than how good. Only `Finish.LENGTH` is cut off: an engine that gave a
completion up says nothing of its length.

Axes: G completions of a group.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from conf.schema import Truncated
from rl.types import Finish, FloatArray, JudgedGroup, PromptGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncationConfig:
    """What is done with completions that ran out of budget.

    - `score`: nothing, the judge's reward stands
    - `zero`: their reward is 0
    - `mask`: they carry no loss, and no baseline or scale counts them: nothing is known of the
      answer, so it makes the others neither better nor worse
    - `penalty`: the soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13) of all completions,
      cut off or not: what is deducted grows over the last `cache_tokens` of the budget, in
      proportion, from 0 to `penalty`
    """

    kind: Truncated = "score"
    max_tokens: int = 0  # the budget
    cache_tokens: int = 0
    penalty: float = 1.0  # in units of reward


def settle(judged: JudgedGroup, cfg: TruncationConfig) -> JudgedGroup:
    """The group with the rewards that the policy learns from."""
    cut_G = np.array([c.finish is Finish.LENGTH for c in judged.group.completions_G], np.bool_)
    match cfg.kind:
        case "score":
            return judged
        case "zero":
            return _deduct(judged, np.where(cut_G, judged.rewards_G, np.float32(0)))
        case "mask":
            return dataclasses.replace(judged, masked_G=cut_G | ~judged.taught_G)
        case "penalty":
            return _deduct(judged, overlong(judged.group, cfg))


def overlong(group: PromptGroup, cfg: TruncationConfig) -> FloatArray:
    """What is deducted from each completion for its length; nothing where the engine gave it up."""
    num_tokens_G = np.array([len(c.token_ids) for c in group.completions_G], np.float64)
    aborted_G = np.array([c.finish is Finish.ABORTED for c in group.completions_G], np.bool_)
    share_G = (num_tokens_G - (cfg.max_tokens - cfg.cache_tokens)) / cfg.cache_tokens
    return np.where(aborted_G, 0, cfg.penalty * np.clip(share_G, 0, 1)).astype(np.float32)


def _deduct(judged: JudgedGroup, deducted_G: FloatArray) -> JudgedGroup:
    rewards_G = judged.rewards_G - deducted_G
    return dataclasses.replace(judged, rewards_G=rewards_G, deducted_G=deducted_G)
