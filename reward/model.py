"""The reward model's text path: problem and code -> the model's own chat template -> token ids.

The same path serves RL, offline scoring, training and serving, so that a score means one thing
everywhere. Code is hostile text: markup in it must never become a special token, or a completion
could end its own turn and speak as the judge.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rl.errors import UserError
from rl.types import IntArray

AdapterName = Literal["sequence_classifier", "codescaler", "acecoder", "themis"]

_THEMIS_SYSTEM = (
    "You judge code by its functional correctness: whether it solves the problem for every input."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What one family of reward models expects around problem and code."""

    system: str | None = None  # system turn, if the family was trained with one
    architectures: tuple[str, ...] = ()  # accepted `architectures` suffixes of config.json


ADAPTERS: dict[str, Adapter] = {
    "sequence_classifier": Adapter(architectures=("ForSequenceClassification",)),
    "codescaler": Adapter(architectures=("ForSequenceClassification",)),
    "acecoder": Adapter(architectures=("ForSequenceClassification", "ForTokenClassification")),
    "themis": Adapter(system=_THEMIS_SYSTEM, architectures=("ForSequenceClassification",)),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """The input of a reward model."""

    token_ids: IntArray  # [T] int32
    truncated: bool


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

    @classmethod
    def load(cls, directory: str, adapter: AdapterName, max_tokens: int) -> TextPath:
        """Read the tokenizer of a reward model's directory (or hub id)."""
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
        special = sorted(set(self._tokenizer.all_special_tokens), key=len, reverse=True)
        pieces = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
        return [
            self._tokenizer.convert_tokens_to_ids(piece) if piece in special else piece
            for piece in pieces
            if piece
        ]

    def encode(self, question: str, code: str) -> Encoded:
        """Encode one pair; at most `max_tokens` long."""
        parts = [self._encode_segment(segment, question, code) for segment in self._segments]
        excess = sum(map(len, parts)) - self._max_tokens
        truncated = excess > 0
        for slot in (self._code_slot, self._question_slot):
            index = self._index_of(slot)
            cut = min(max(excess, 0), len(parts[index]))
            parts[index] = parts[index][: len(parts[index]) - cut]
            excess -= cut
        token_ids = np.array([t for part in parts for t in part], dtype=np.int32)
        return Encoded(token_ids=token_ids, truncated=truncated)

    def _index_of(self, slot: str) -> int:
        return next(i for i, s in enumerate(self._segments) if isinstance(s, str) and slot in s)

    def _encode_segment(self, segment: int | str, question: str, code: str) -> list[int]:
        if isinstance(segment, int):
            return [segment]
        # One pass, so that a slot's name inside a filled text is never filled again.
        slots = f"({self._question_slot}|{self._code_slot})"
        fill = {self._question_slot: question, self._code_slot: code}
        text = "".join(fill.get(piece, piece) for piece in re.split(slots, segment))
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(ids["input_ids"])


def check_reward_model(directory: str, adapter: AdapterName) -> None:
    """Refuse a local directory that is no reward model, before any engine starts."""
    path = Path(directory)
    if not path.is_dir():
        return  # a hub id: from_pretrained resolves it and names what is missing
    check_model_directory(path, "reward.model")
    config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    names = [str(name) for name in config.get("architectures") or []]
    accepted = ADAPTERS[adapter].architectures
    if not any(name.endswith(accepted) for name in names):
        raise UserError(
            f"reward.model: {directory} has architectures {names}, but the adapter {adapter!r} "
            f"reads a class that ends in {' or '.join(accepted)}; train one with "
            "launch/train_rm.py or choose another reward.adapter"
        )


def check_model_directory(path: Path, key: str) -> None:
    """Raise `UserError` unless `path` holds a Hugging Face model in safetensors."""
    for name in ("config.json", "tokenizer.json"):
        if not (path / name).is_file():
            raise UserError(f"{key}: {path} has no {name}; give a Hugging Face model directory")
    if not any(path.glob("*.safetensors")):
        raise UserError(
            f"{key}: {path} holds no *.safetensors; other weight files can run code when they are "
            "loaded, so save the model with save_pretrained(safe_serialization=True)"
        )
