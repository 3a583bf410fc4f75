"""Conversion of a GGUF file into a Hugging Face directory, by transformers and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from actors.engines.stored.saved_model import copy_tokenizer
from conf.errors import UserError, in_one_line
from launch.stored_gguf.files import (
    Carried,
    GgufFile,
    check_metadata,
    check_vocabulary,
    check_weights,
    check_written,
    repair_config,
    repair_tokenizer,
)
from rl.base.files import replace_json


def convert(file: GgufFile, target: Path, dtype: str, own: Path | None, carried: Carried) -> None:
    """Write the model of `file` to `target`, with the tokenizer of `own` if it is given.

    Raises:
        UserError: for a file that transformers cannot convert, or would convert wrongly.
    """
    import torch  # noqa: PLC0415 - after the arguments are good
    from transformers import (  # noqa: PLC0415
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        GgufConfig,
    )
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING  # noqa: PLC0415
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (  # noqa: PLC0415
        GGUF_PRE_TOKENIZER_SPLITS,
    )

    folder, name = file.path.parent, file.path.name
    known = GGUF_CONFIG_MAPPING.get(_name_in_transformers(file.architecture), {})
    check_metadata(file, known, carried)
    try:
        config = AutoConfig.from_pretrained(folder, gguf_file=name)
        tokenizer = AutoTokenizer.from_pretrained(own or folder, gguf_file=None if own else name)
    except Exception as error:  # of a library that reads a foreign file
        raise UserError(
            f"input: {file.path} cannot be converted by transformers ({in_one_line(error)}); "
            "take the safetensors of this model"
        ) from error
    if own is None:
        repair_tokenizer(file, tokenizer, tuple(GGUF_PRE_TOKENIZER_SPLITS), carried)
    else:
        check_vocabulary(file, tokenizer, str(own))
    repair_config(file, config, carried)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=name,
        config=config,
        quantization_config=GgufConfig(dequantize=True),
        dtype=getattr(torch, dtype),
        output_loading_info=True,
    )
    model, info = loaded
    check_weights(file, model, info)
    model.save_pretrained(target)
    if own is None:
        tokenizer.save_pretrained(target)
        check_written(tokenizer, target)
    else:
        copy_tokenizer(own, target)
    # The weights are plain again, and must not be announced as quantised.
    config_file = target / "config.json"
    written = json.loads(config_file.read_text(encoding="utf-8"))
    written.pop("quantization_config", None)
    replace_json(config_file, written)


def _name_in_transformers(architecture: str) -> str:
    """What transformers calls an architecture of llama.cpp."""
    return {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe"}.get(architecture, architecture)
