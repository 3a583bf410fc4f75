"""Supervised warm start: answers as trainable sequences for `rl.loss.NllObjective`."""

# transformers is typed in parts; what leaves it is narrowed before use.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from transformers import PreTrainedTokenizerBase

from rl.types import Sample


def answer_samples(
    answers: Iterable[tuple[str, str]], tokenizer: PreTrainedTokenizerBase
) -> list[Sample]:
    """(question, answer) -> chat prompt, answer and end-of-sequence token; loss on the answer."""
    samples: list[Sample] = []
    for index, (question, answer) in enumerate(answers):
        turns = [{"role": "user", "content": question}]
        prompt_ids = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=False
        )
        answer_ids = [
            *tokenizer(answer, add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
        samples.append(
            Sample(
                prompt_id=f"answer-{index}",
                sample_idx=0,
                token_ids=np.array([*prompt_ids, *answer_ids], dtype=np.int32),
                num_prompt_tokens=len(prompt_ids),
                rollout_logprobs=np.zeros(len(answer_ids), dtype=np.float32),
                advantage=0.0,
                policy_version=0,
            )
        )
    return samples
