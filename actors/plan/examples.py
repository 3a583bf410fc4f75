"""Given examples of a run, as its policy reads them; and the texts that recipes make."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from conf.errors import DataError
from conf.schema import ModelConfig
from rl.base.faults import listing
from rl.problems.examples import Kind, read_examples
from rl.recipes.recipe import Encode
from rl.samples import given_sample
from rl.text.chat_template import encode_prompt, load_policy_tokenizer
from rl.text.tokenizer import character_ends
from rl.types import IntArray, Prompt, Sample


class PolicyTexts:
    """Texts as tokens of the policy; its tokenizer is loaded when the first one comes."""

    def __init__(self, model: ModelConfig) -> None:
        self._model = model

    @cached_property
    def _tokenizer(self) -> Any:  # noqa: ANN401 - tokenizers have no common typed base
        return load_policy_tokenizer(self._model.path, self._model.chat_template)

    def fits(self, prompt: Prompt, prefix: str = "") -> bool:
        """Whether a prompt, with a given start of the answer, is within the limit."""
        num_tokens = len(encode_prompt(self._tokenizer, prompt, prefix))
        return num_tokens <= self._model.max_prompt_tokens

    def ends(self, token_ids: IntArray) -> IntArray:
        """Where each token ends in the text of all."""
        return character_ends(self._tokenizer, token_ids)

    def encode(self, prompt: Prompt, answer: str, *, prefix: str = "", ends: bool = True) -> Sample:
        """A given answer as a trainable sequence: see `rl.recipes.recipe.Encode`.

        Raises:
            DataError: for a prompt or an answer above the limits of `model`.
        """
        prompt_ids = encode_prompt(self._tokenizer, prompt, prefix)
        ids: list[int] = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
        answer_ids = [*ids, self._tokenizer.eos_token_id] if ends else ids
        for what, size, limit in (
            ("prompt", len(prompt_ids), "max_prompt_tokens"),
            ("answer", len(answer_ids), "max_completion_tokens"),
        ):
            most: int = getattr(self._model, limit)
            if size > most:
                raise DataError(f"the {what} has {size} tokens, above model.{limit}={most}")
        return given_sample(prompt.id, prompt_ids.tolist(), answer_ids)


def load_examples(path: str, kind: Kind, encode: Encode) -> list[tuple[Sample, ...]]:
    """The examples of a file as trainable sequences: one for each answer.

    Raises:
        DataError: with `file:row` for each that is malformed or too long, the first ones.
    """
    made: list[tuple[Sample, ...]] = []
    faults: list[str] = []
    for example in read_examples(path, kind):
        try:
            made.append(tuple(encode(example.prompt, text) for text in example.answers))
        except DataError as error:
            faults.append(f"{example.place}: {error}")
    if faults:
        raise DataError(f"{listing(faults)}\nraise the limit, or drop these rows")
    return made
