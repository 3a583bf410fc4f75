"""Files of a model's directory, checked without loading anything heavy; the adapters."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from conf.errors import UserError
from conf.schema import AdapterName
from reward.model.directory import (
    IS_ADAPTER,
    check_directory,
    context_in,
    context_key,
    is_adapter,
    read_object,
)
from reward.model.labels import check_one_label, check_score_head
from reward.model.loading import check_tensors
from reward.model.safetensors_files import INDEX, check_whole
from rl.base.files import lack_of

_CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification")
_OUR_FOLDERS = {"models", "outputs"}  # where our commands write models: never an owner on a hub


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What one family of reward models expects around problem and code."""

    system: str | None = None  # system turn, if the family was trained with one
    needs_system: bool = False  # a prompt of its own, which is not ours to make up
    architectures: tuple[str, ...] = ()  # accepted `architectures` suffixes of config.json


ADAPTERS: dict[str, Adapter] = {
    "sequence_classifier": Adapter(architectures=("ForSequenceClassification",)),
    "codescaler": Adapter(architectures=("ForSequenceClassification",)),
    "acecoder": Adapter(architectures=("ForSequenceClassification", "ForTokenClassification")),
    "themis": Adapter(needs_system=True, architectures=("ForSequenceClassification",)),
}


def context_of(directory: Path) -> int | None:
    """Positions of a model, as its config.json states them under any of the usual names."""
    return context_in(read_object(directory / "config.json"))


def architectures_of(directory: Path) -> list[str]:
    """Classes of a model, as its config.json states them."""
    architectures: list[Any] = read_object(directory / "config.json").get("architectures") or []
    return [str(name) for name in architectures]


def check_context(directory: Path, num_tokens: int, key: str) -> None:
    """Raise `UserError` when `key` asks for more tokens than the model has positions."""
    config = read_object(directory / "config.json")
    positions = context_in(config)
    if positions is not None and num_tokens > positions:
        raise UserError(
            f"{key}: {num_tokens} tokens are more than the {positions} positions of {directory} "
            f"({context_key(config)} in config.json); lower {key}"
        )


def find_model(model: str, key: str) -> Path | None:
    """The directory of a local model, checked; None for a hub id, of which nothing is known here.

    Raises:
        UserError: unless the directory holds a whole Hugging Face model in safetensors.
    """
    if not model:
        raise UserError(f"{key}: has no value; give {key}=DIR or a hub id")
    if not is_local(model):
        return None
    path = Path(model)
    if not os.path.isdir(path):
        what = lack_of(path) or "is a file, not a directory"
        raise UserError(f"{key}: the model directory {model} {what}; give {key}=DIR or a hub id")
    for name in ("config.json", "tokenizer.json"):
        if not (path / name).is_file():
            lacks = f"has no {name}; give a Hugging Face model directory"
            raise UserError(f"{key}: {path} {IS_ADAPTER if is_adapter(path) else lacks}")
    if not any(path.glob("*.safetensors")) and not (path / INDEX).is_file():
        raise UserError(
            f"{key}: {path} holds no *.safetensors; other weight files can run code when they are "
            "loaded, so save the model with save_pretrained(safe_serialization=True)"
        )
    try:
        check_directory(path)
    except UserError as error:
        faults = str(error).splitlines()
        raise UserError("\n".join(f"{key}: {fault}" for fault in faults)) from error
    return path


def check_policy(model: str, key: str) -> Path | None:
    """`find_model` of a model that generates text; a reward model is refused."""
    path = find_model(model, key)
    names = [] if path is None else architectures_of(path)
    if any(name.endswith(_CLASSIFIERS) for name in names):
        raise UserError(
            f"{key}: {model} is a {names[0]}, which generates no text; give a causal language model"
        )
    if path is not None:
        check_tensors(path, key, "lm")
    return path


class RewardKeys(NamedTuple):
    """What a command calls the keys of its reward model, for messages."""

    model: str = "reward.model"
    adapter: str = "reward.adapter"
    max_tokens: str = "reward.max_tokens"
    system: str = "reward.system"
    golden_scores: str = "reward.golden_scores"


_OF_A_RUN = RewardKeys()


def check_reward_model(
    model: str, adapter: AdapterName, max_tokens: int, keys: RewardKeys = _OF_A_RUN
) -> None:
    """Refuse a local directory that is no reward model, before any engine starts."""
    path = find_model(model, keys.model)
    if path is None:
        return
    names = architectures_of(path)
    check_score_head(path, keys.model)
    accepted = ADAPTERS[adapter].architectures
    if not any(name.endswith(accepted) for name in names):
        raise UserError(
            f"{keys.model}: {model} has architectures {names}, but the adapter {adapter!r} "
            f"reads a class that ends in {' or '.join(accepted)}; train one with "
            f"launch/train_rm.py, make one of a language model with launch/import_yes_no.py, or "
            f"choose another {keys.adapter}"
        )
    check_one_label(read_object(path / "config.json"), model, keys.model)
    check_has_template(path, keys.model, "put the chat_template.jinja of its training beside it")
    check_context(path, max_tokens, keys.max_tokens)
    if not any(name.endswith("ForTokenClassification") for name in names):
        check_tensors(path, keys.model, "score")


def check_family(adapter: AdapterName, system: str | None, keys: RewardKeys = _OF_A_RUN) -> None:
    """Refuse a family that was trained with a system turn that is neither known nor given."""
    if system is None and ADAPTERS[adapter].needs_system:
        raise UserError(
            f"{keys.adapter}: models of the family {adapter} were trained with a system turn of "
            "their own (criteria, language), and score off their distribution without it; give "
            f"{keys.system}=FILE with the text of the model's card"
        )


def read_system(value: str | None, key: str) -> str | None:
    """The text of the file that holds a system turn.

    Raises:
        UserError: when there is no such file, nothing in it, or no text.
    """
    if value is None:
        return None
    fault, text = lack_of(value), ""
    if fault is None:
        try:
            text = Path(value).read_text(encoding="utf-8").strip("\n")
            fault = None if text else "is empty"
        except ValueError as error:
            fault = f"is not UTF-8 text ({error})"
    if fault is not None:
        raise UserError(f"{key}: the file {value} {fault}; give a file with the system turn")
    return text


def check_has_template(directory: Path, key: str, fix: str) -> None:
    """Refuse a local model whose files hold no chat template; nothing is loaded for it."""
    names = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    if any((directory / name).exists() for name in names):
        return
    path = directory / "tokenizer_config.json"
    fields = read_object(path) if path.is_file() else {}
    if not fields.get("chat_template"):
        raise UserError(f"{key}: {directory} has no chat template; {fix}")


def num_parameters(directory: Path) -> int:
    """Numbers in the safetensors files of a local model, as their headers state them.

    Raises:
        UserError: for a file that is none, or not whole, such as the pointer of Git LFS.
    """
    headers = [check_whole(path).tensors for path in directory.glob("*.safetensors")]
    return sum(math.prod(entry.shape) for tensors in headers for entry in tensors.values())


def is_local(model: str) -> bool:
    """Whether a model is named by a path; `owner/name` is a hub id unless `owner` is a folder here.

    >>> is_local("models/rm"), is_local("./rm"), is_local("Qwen/Qwen3-8B")
    (True, True, False)
    """
    path = Path(model)
    named = os.path.exists(path) or model.startswith((".", "/", "~")) or model.count("/") != 1
    return named or os.path.isdir(path.parent) or path.parts[0] in _OUR_FOLDERS
