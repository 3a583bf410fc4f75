"""Files of a model, wherever it is: in a directory, or on a hub; and its identity."""

# transformers is typed in parts; what leaves it is narrowed before use.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from conf.errors import UserError
from rl.base.json_text import JsonFault, parse_json

# What decides how a model samples, beside its weights.
_SMALL_FILES = frozenset(
    [
        "config.json",
        "generation_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ]
)
_BLOCK_BYTES = 1 << 16
_NUM_BLOCKS = 256  # of one weight file


def model_file(model: str, name: str) -> Path | None:
    """The file `name` of a model's directory or hub id (it is fetched); None where it has none.

    Raises:
        UserError: when the hub does not answer.
    """
    directory = Path(model)
    if os.path.isdir(directory):
        path = directory / name
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file  # noqa: PLC0415 - seconds

    try:
        found = cached_file(model, name, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{model}: its {name} cannot be fetched ({first_line(error)}); fetch the model, and "
            "give its directory"
        ) from error
    return None if found is None else Path(found)


def model_config(model: str) -> dict[str, Any]:
    """The config.json of a model; empty where it has none."""
    path = model_file(model, "config.json")
    if path is None:
        return {}
    try:
        value: object = parse_json(path.read_bytes())
    except JsonFault as error:
        raise UserError(f"{path}: {error}; fetch the model again") from error
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that is about text; all of it for most models."""
    part = config.get("text_config")
    return cast("dict[str, Any]", part) if isinstance(part, dict) else config


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that some libraries add."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def model_digest(directory: Path) -> str:
    """Identity of a local model: its small files, and its weights by size and spaced blocks.

    Any training step changes nearly every weight, so blocks are enough to tell two models apart;
    reading all of a large model would take minutes.
    """
    digest = blake2b(digest_size=16)
    for path in sorted(directory.iterdir()):
        if path.name not in _SMALL_FILES and path.suffix != ".safetensors":
            continue
        digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
        for block in _blocks(path):
            digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    stride = _BLOCK_BYTES if path.name in _SMALL_FILES else max(_BLOCK_BYTES, size // _NUM_BLOCKS)
    with path.open("rb") as file:
        for offset in range(0, size, stride):
            file.seek(offset)
            yield file.read(_BLOCK_BYTES)
