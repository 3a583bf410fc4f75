"""Classifier with one score, written from the files of a language model, a file at a time.

The weights keep their numbers and their data type; what changes is the head, and what is said of
it. Commands that import a model name the tensors, and give those of a head that no file holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from actors.engines.stored.saved_model import copy_tokenizer, one_label, write_config
from conf.errors import UserError
from reward.model.directory import read_object
from reward.model.safetensors_files import INDEX

HEAD = "score"  # of the classifiers of transformers
_NONE: Mapping[str, Any] = MappingProxyType({})


def classifier_of(source: Path, *, has_bias: bool) -> str:
    """The class of transformers for one score; its sequence classifiers have no bias.

    Raises:
        UserError: for a family that has no such class.
    """
    factory: Any = AutoModelForSequenceClassification
    if has_bias:
        factory = AutoModelForTokenClassification
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        return factory._model_mapping[type(config)].__name__
    except (KeyError, ValueError) as error:
        kind = read_object(source / "config.json").get("model_type")
        raise UserError(
            f"input: transformers has no {'token' if has_bias else 'sequence'} classifier for "
            f"the model_type {kind!r} of {source}; models of its family cannot be converted"
        ) from error


def write_classifier(  # noqa: PLR0913 - what is read, and what is written
    source: Path,
    staged: Path,
    architecture: str,
    name_of: Callable[[str], str | None],
    *,
    head: Mapping[str, Tensor] = _NONE,
    changes: Mapping[str, Any] = _NONE,
) -> str:
    """Write configuration, tokenizer and weights to `staged`; the data type of the weights.

    `name_of` is what the classifier calls a tensor of `source`, None where it has no place for it.
    `head` holds tensors that `source` does not; `changes` are those of config.json beside the one
    label.
    """
    weight_map: dict[str, str] = {}
    dtype = ""
    files = sorted(source.glob("*.safetensors"))
    for number, file in enumerate(files, start=1):
        tensors = dict(_named(file, name_of)) | (dict(head) if file == files[-1] else {})
        if not tensors:  # it holds the LM head alone
            continue
        shard = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file(tensors, staged / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, shard)
        bodies = [tensor for name, tensor in tensors.items() if not name.startswith(f"{HEAD}.")]
        dtype = str(bodies[0].dtype).removeprefix("torch.") if bodies else dtype
    index = {"metadata": {}, "weight_map": weight_map}
    (staged / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    write_config(source, staged, architecture, dtype, one_label() | dict(changes))
    copy_tokenizer(source, staged)
    return dtype


def _named(file: Path, name_of: Callable[[str], str | None]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file under the names of a classifier."""
    opened: Any = safe_open(file, framework="pt")
    with opened as tensors:
        for stored in tensors.keys():  # noqa: SIM118 - no mapping
            name = name_of(stored)
            if name is not None:
                yield name, tensors.get_tensor(stored)
