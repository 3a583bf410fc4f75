"""What a reward model's directory must hold, by family; checked without loading anything heavy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rl.errors import UserError

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


def context_of(directory: Path) -> int | None:
    """Positions of a model, as its config.json states them."""
    config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    positions = config.get("max_position_embeddings")
    return positions if isinstance(positions, int) else None


def check_context(directory: Path, num_tokens: int, key: str) -> None:
    """Raise `UserError` when `key` asks for more tokens than the model has positions."""
    positions = context_of(directory)
    if positions is not None and num_tokens > positions:
        raise UserError(
            f"{key}: {num_tokens} tokens are more than the {positions} positions of {directory}; "
            f"lower {key}"
        )


def check_reward_model(directory: str, adapter: AdapterName, max_tokens: int) -> None:
    """Refuse a local directory that is no reward model, before any engine starts."""
    path = Path(directory)
    check_model_directory(path, "reward.model")
    config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    architectures: list[Any] = config.get("architectures") or []
    names = [str(name) for name in architectures]
    accepted = ADAPTERS[adapter].architectures
    if not any(name.endswith(accepted) for name in names):
        raise UserError(
            f"reward.model: {directory} has architectures {names}, but the adapter {adapter!r} "
            f"reads a class that ends in {' or '.join(accepted)}; train one with "
            "launch/train_rm.py or choose another reward.adapter"
        )
    check_context(path, max_tokens, "reward.max_tokens")


def check_model_directory(path: Path, key: str) -> None:
    """Raise `UserError` unless `path` holds a Hugging Face model in safetensors."""
    if not path.is_dir():
        raise UserError(f"{key}: the directory {path} does not exist; give {key}=DIR or a hub id")
    for name in ("config.json", "tokenizer.json"):
        if not (path / name).is_file():
            raise UserError(f"{key}: {path} has no {name}; give a Hugging Face model directory")
    if not any(path.glob("*.safetensors")):
        raise UserError(
            f"{key}: {path} holds no *.safetensors; other weight files can run code when they are "
            "loaded, so save the model with save_pretrained(safe_serialization=True)"
        )


def is_local(path: str) -> bool:
    """Whether a model is named by a path: `owner/name` that is no directory here is a hub id."""
    return Path(path).exists() or path.startswith((".", "/", "~")) or path.count("/") != 1
