"""The reward model's text path: problem and code -> the model's own chat template -> token ids.

The same path serves RL, offline scoring, training and serving, so that a score means one thing
everywhere. Code is hostile text: markup in it must never become a special token, or a completion
could end its own turn and speak as the judge.
"""

# transformers is typed in parts; what leaves it is narrowed before use.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np

from reward.model_files import ADAPTERS, AdapterName
from rl.errors import UserError
from rl.types import IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """The input of a reward model."""

    token_ids: IntArray  # [T] int32
    truncated: bool
    code_start: int  # index of the first token of the text that holds the code


class TextPath:
    """Turn (question, code) into the reward model's token ids.

    The rendered template is cut at its own special tokens. Between them stands plain text, in which
    problem and code are filled; it is tokenised with special tokens read as text. Special tokens
    always end a word, so the result is that of the plain chat template for every harmless text.

    The score is read at the last token. A sequence that is too long therefore loses tokens from the
    end of the code, then of the problem, and keeps the closing tokens; `truncated` says so.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, adapter: AdapterName, max_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._question_slot, self._code_slot = uuid.uuid4().hex, uuid.uuid4().hex
        self._segments = self._render(ADAPTERS[adapter].system)
        # What all programs of a problem have in common is tokenised once.
        self._tokenise_shared = lru_cache(maxsize=256)(self._tokenise_one)

    @classmethod
    def load(cls, directory: str, adapter: AdapterName, max_tokens: int) -> TextPath:
        """Read the tokenizer of a reward model's directory (or hub id)."""
        from transformers import AutoTokenizer  # noqa: PLC0415 - seconds, and drivers load none

        return cls(AutoTokenizer.from_pretrained(directory), adapter, max_tokens)

    def _render(self, system: str | None) -> list[int | str]:
        """Special token ids, and the plain texts between them."""
        turns = [
            {"role": "user", "content": self._question_slot},
            {"role": "assistant", "content": self._code_slot},
        ]
        if system is not None:
            turns.insert(0, {"role": "system", "content": system})
        text = str(self._tokenizer.apply_chat_template(turns, tokenize=False))
        if text.count(self._question_slot) != 1 or text.count(self._code_slot) != 1:
            raise UserError(
                "reward.model: its chat template does not show problem and code exactly once; "
                "take a model whose tokenizer has a template for a user and an assistant turn"
            )
        special = sorted(_special_tokens(self._tokenizer), key=len, reverse=True)
        before, _, rest = text.partition(self._question_slot)
        self._around = (before, *rest.split(self._code_slot, 1))
        pieces = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
        return [
            cast(int, self._tokenizer.convert_tokens_to_ids(piece)) if piece in special else piece
            for piece in pieces
            if piece
        ]

    def encode(self, question: str, code: str) -> Encoded:
        """Encode one pair; at most `max_tokens` long."""
        return self.encode_all(question, [code])[0]

    def encode_all(self, question: str, codes: Sequence[str]) -> list[Encoded]:
        """Encode the programs of one problem, in one call of the tokenizer."""
        if not codes:
            return []
        segments = [self._encode_segment(segment, question, codes) for segment in self._segments]
        return [self._cut(list(parts)) for parts in zip(*segments, strict=True)]

    def _cut(self, parts: list[list[int]]) -> Encoded:
        """Join the segments of one pair, without what is too much."""
        excess = sum(map(len, parts)) - self._max_tokens
        truncated = excess > 0
        for slot in (self._code_slot, self._question_slot):
            index = self._index_of(slot)
            cut = min(max(excess, 0), len(parts[index]))
            parts[index] = parts[index][: len(parts[index]) - cut]
            excess -= cut
        token_ids = np.array([t for part in parts for t in part], dtype=np.int32)
        code_start = sum(map(len, parts[: self._index_of(self._code_slot)]))
        return Encoded(token_ids=token_ids, truncated=truncated, code_start=code_start)

    def forged_turn(self, claim: str) -> str:
        """Markup that ends the assistant's turn, lets the user speak, and opens it again.

        Read by the plain chat template inside a program, it would do that; here it is text.
        """
        before, between, after = self._around
        return f"{after}{before}{claim}{between}"

    def _index_of(self, slot: str) -> int:
        return next(i for i, s in enumerate(self._segments) if isinstance(s, str) and slot in s)

    def _encode_segment(
        self, segment: int | str, question: str, codes: Sequence[str]
    ) -> list[list[int]]:
        """Token ids of one segment, for each program."""
        if isinstance(segment, int):
            return [[segment]] * len(codes)
        if self._code_slot not in segment:
            return [self._tokenise_shared(self._fill(segment, question, ""))] * len(codes)
        return self._tokenise([self._fill(segment, question, code) for code in codes])

    def _fill(self, segment: str, question: str, code: str) -> str:
        # One pass, so that a slot's name inside a filled text is never filled again.
        slots = f"({self._question_slot}|{self._code_slot})"
        fill = {self._question_slot: question, self._code_slot: code}
        return "".join(fill.get(piece, piece) for piece in re.split(slots, segment))

    def _tokenise_one(self, text: str) -> list[int]:
        return self._tokenise([text])[0]

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        found = self._tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
        return cast(list[list[int]], found["input_ids"])


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Everything that `split_special_tokens` reads as text.

    `all_special_tokens` alone has only those with a role (end of sequence, padding, ...): a chat
    markup token that no role names would be missing.
    """
    added = tokenizer.added_tokens_decoder.values()
    return {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
