"""Completions -> trainable sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from conf.errors import NonFiniteError
from rl.types import FloatArray, JudgedGroup, PromptGroup, Sample


def build_samples(
    groups_P: Sequence[JudgedGroup], advantages_PG: Sequence[FloatArray], *, keep_zero: bool
) -> list[Sample]:
    """Samples of the completions that carry a gradient; with `keep_zero` of all that have tokens.

    Raises NonFiniteError for an advantage that is no number.
    """
    return [
        sample_of(judged.group, position, float(advantage))
        for judged, advantages_G in zip(groups_P, advantages_PG, strict=True)
        for position, (advantage, trainable) in enumerate(
            zip(advantages_G, judged.trainable_G, strict=True)
        )
        if trainable and (advantage != 0.0 or keep_zero)
    ]


def sample_of(group: PromptGroup, position: int, advantage: float) -> Sample:
    """The trainable sequence of one completion; raises NonFiniteError for such an advantage."""
    completion = group.completions_G[position]
    if not np.isfinite(advantage):
        raise NonFiniteError(
            f"the advantage of prompt {group.prompt.id}, sample {completion.sample_idx} is "
            f"{advantage}; look at the scores of that group"
        )
    return Sample(
        prompt_id=completion.prompt_id,
        sample_idx=completion.sample_idx,
        token_ids=np.concatenate([group.prompt_token_ids, completion.token_ids]),
        num_prompt_tokens=len(group.prompt_token_ids),
        rollout_logprobs=completion.rollout_logprobs,
        advantage=advantage,
        policy_version=completion.policy_version,
        support_TK=completion.support_TK,
    )


def over_all_tokens(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with log-probs over all tokens, also where each was sampled among few.

    What is imitated or preferred is to be likelier than any other answer: over the tokens that it
    was sampled among alone, no other token would ever become less likely.
    """
    return [replace(sample, support_TK=None) for sample in samples]


def given_sample(prompt_id: str, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> Sample:
    """The trainable sequence of an answer that nobody sampled."""
    return Sample(
        prompt_id=prompt_id,
        sample_idx=0,
        token_ids=np.array([*prompt_ids, *answer_ids], dtype=np.int32),
        num_prompt_tokens=len(prompt_ids),
        rollout_logprobs=np.zeros(len(answer_ids), dtype=np.float32),
        advantage=0.0,
        policy_version=0,
    )
