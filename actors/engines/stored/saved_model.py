"""The small files of a trained model's directory: everything but the weights.

What a training only passes through is copied byte for byte from the model that it started from:
tokenizer, chat template, generation settings. A library that reads and writes them again may
refuse at the end of a run what it took at the start, or say less than the file did. `config.json`
is copied too, but for the keys that a training changes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from conf.errors import UserError
from reward.model.directory import read_object
from rl.base.files import replace_file

GENERATION = "generation_config.json"
# Whatever a tokenizer may be made of; patterns, as a hub and `Path.glob` read them.
TOKENIZER_FILES = (
    "tokenizer*.json",
    "tokenizer.model*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece*.model",
    "*.tiktoken",
    "chat_template.*",
    "additional_chat_templates/*",
)


def small_files(model: str) -> Path:
    """The directory that holds the small files of a model; those of a hub id are fetched."""
    directory = Path(model)
    if directory.is_dir():
        return directory
    return Path(
        snapshot_download(model, allow_patterns=["config.json", GENERATION, *TOKENIZER_FILES])
    )


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of a tokenizer, chat templates included."""
    for pattern in TOKENIZER_FILES:
        for file in source.glob(pattern):
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)  # the file itself where a hub's cache has a link


def copy_generation(source: Path, target: Path) -> None:
    """Copy the settings that a model generates with, if it has some."""
    if (source / GENERATION).is_file():
        shutil.copyfile(source / GENERATION, target / GENERATION)


def write_config(
    source: Path, target: Path, architecture: str, dtype: str, changes: Mapping[str, Any]
) -> None:
    """Write `config.json` of `source` with another class, another dtype and `changes`.

    Every other key keeps its name and value, so whoever could read the base can read the result.
    """
    config = read_object(source / "config.json")
    config["architectures"] = [architecture]
    for name in [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]:
        config[name] = dtype
    config |= changes
    text = json.dumps(config, indent=2, ensure_ascii=False)
    replace_file(target / "config.json", text + "\n")


def one_label() -> dict[str, Any]:
    """What `config.json` says of a model with one score."""
    return {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "num_labels": 1}


def same_kind(source: Path, model_type: str) -> bool:
    """Whether `config.json` is that of the loaded model, not of a larger one around it."""
    try:
        return read_object(source / "config.json").get("model_type") == model_type
    except UserError:
        return False
