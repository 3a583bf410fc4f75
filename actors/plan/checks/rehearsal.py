"""Rehearsal of a model's small files: read and built as the actors will, before any of them starts.

`reward.model.directory` has said by now what the files themselves get wrong; here the classes of
transformers read them. Seconds, and no weights.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from conf.errors import UserError, in_one_line
from reward.model.directory import CONTEXT_KEYS, read_object
from reward.model.files import architectures_of, find_model
from reward.model.loading import Head
from rl.base.scratch import Scratch

T = TypeVar("T")
# What a model is loaded as: the class of transformers, and what it is in words.
_TASKS = {
    "lm": ("AutoModelForCausalLM", "causal language model"),
    "score": ("AutoModelForSequenceClassification", "sequence classifier"),
}
_OF_TOKENS = "ForTokenClassification"


@lru_cache(maxsize=64)  # the jobs of a sweep share their models
def rehearse(
    model: str, key: str, task: Head, *, num_tokens: int | None = None, saves: bool = False
) -> str | None:
    """Read, build without weights, and for a training write, what a local model's files describe.

    `num_tokens` is the context that is asked for; `saves` for a model that is trained and saved.
    The answer is the class that it is loaded as; None for a hub id, which is left to the actors.

    Raises:
        UserError: naming `key`, the file and the reason.
    """
    directory = find_model(model, key)
    if directory is None:
        return None
    with _quiet():
        config = _configuration(directory, key)
        positions = positions_of(config)
        if num_tokens is not None and positions is not None and num_tokens > positions:
            raise UserError(
                f"{key}: {num_tokens} tokens are more than the {positions} positions of "
                f"{directory} (those of its class, where config.json states none); ask for less"
            )
        architecture = _build(directory, key, config, task)
        _tokenizer(directory, key)
        _generation(directory, key)
        if saves:
            _save(directory, key, architecture, task)
    return architecture


def positions_of(config: Any) -> int | None:  # noqa: ANN401 - a configuration of any model
    """Positions of a loaded configuration, with the defaults of its class."""
    text = config.get_text_config(decoder=True)
    found = [getattr(text, name, None) for name in CONTEXT_KEYS]
    return min((value for value in found if isinstance(value, int)), default=None)


def _configuration(directory: Path, key: str) -> Any:  # noqa: ANN401 - a configuration of any model
    from transformers import AutoConfig, __version__  # noqa: PLC0415 - seconds
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    model_type = read_object(directory / "config.json")["model_type"]
    if model_type not in CONFIG_MAPPING:
        raise UserError(
            f"{key}: {directory / 'config.json'} is of model_type {model_type!r}, which "
            f"transformers {__version__} does not know; take a model of another architecture"
        )
    return _tried(
        lambda: AutoConfig.from_pretrained(directory, trust_remote_code=False),
        f"{key}: {directory / 'config.json'} is refused by transformers",
        "correct the file, or take it from where the model was published",
    )


def _build(directory: Path, key: str, config: Any, task: Head) -> str:  # noqa: ANN401
    """The class that the model is loaded as; built without memory for its weights."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    name, what = _TASKS[task]
    if task == "score" and any(one.endswith(_OF_TOKENS) for one in architectures_of(directory)):
        name, what = f"AutoModel{_OF_TOKENS}", "token classifier"
    factory: Any = getattr(transformers, name)

    def build() -> str:
        with torch.device("meta"):
            return type(factory.from_config(config)).__name__

    return _tried(
        build,
        f"{key}: no {what} can be built from {directory / 'config.json'}",
        "correct the file, or take a model of another architecture",
    )


def _tokenizer(directory: Path, key: str) -> None:
    from transformers import AutoTokenizer  # noqa: PLC0415

    _tried(
        lambda: AutoTokenizer.from_pretrained(directory, trust_remote_code=False),
        f"{key}: the tokenizer of {directory} cannot be loaded",
        "fetch tokenizer.json and tokenizer_config.json again",
    )


def _generation(directory: Path, key: str) -> None:
    from transformers import GenerationConfig  # noqa: PLC0415

    file = directory / "generation_config.json"
    if file.is_file():
        _tried(
            lambda: GenerationConfig.from_pretrained(directory),
            f"{key}: {file} cannot be read",
            "correct the file, or delete it: no sampling goes by it",
        )


def _save(directory: Path, key: str, architecture: str, task: Head) -> None:
    """Write beside no weights what a training writes beside its own, and read it back."""
    from transformers import AutoConfig  # noqa: PLC0415

    from actors.engines.stored.saved_model import (  # noqa: PLC0415
        copy_generation,
        copy_tokenizer,
        one_label,
        write_config,
    )

    def save() -> None:
        with Scratch("rehearsal") as scratch:
            target = scratch.path
            changes = {} if task == "lm" else one_label()
            write_config(directory, target, architecture, "float32", changes)
            copy_tokenizer(directory, target)
            copy_generation(directory, target)
            AutoConfig.from_pretrained(target)

    _tried(
        save,
        f"{key}: what is written beside the trained weights cannot be saved",
        f"correct the files of {directory}",
    )


def _tried(call: Callable[[], T], what: str, fix: str) -> T:
    try:
        return call()
    except UserError:
        raise
    except Exception as error:  # whatever a library raises for bad input
        raise UserError(f"{what} ({in_one_line(error)}); {fix}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the remarks of transformers: faults are reported in our own words."""
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
