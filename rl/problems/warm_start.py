"""Supervised warm start: answers as trainable sequences for `rl.loss.NllObjective`."""

# transformers is typed in parts; what leaves it is narrowed before use.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from rl.samples import given_sample
from rl.types import Sample


def answer_samples(
    answers: Iterable[tuple[str, str]], tokenizer: PreTrainedTokenizerBase
) -> list[Sample]:
    """(question, answer) -> chat prompt, answer and end-of-sequence token; loss on the answer."""
    samples: list[Sample] = []
    for index, (question, answer) in enumerate(answers):
        turns = [{"role": "user", "content": question}]
        prompt_ids: Any = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=False
        )
        answer_ids: list[Any] = [
            *tokenizer(answer, add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
        samples.append(given_sample(f"answer-{index}", prompt_ids, answer_ids))
    return samples
