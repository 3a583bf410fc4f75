"""GGUF file -> Hugging Face directory: `python launch/import_gguf.py input=FILE output=DIR`.

vLLM, DeepSpeed and transformers then all load the same safetensors. Quantised weights are widened;
what the quantisation lost is lost. What the conversion of transformers would get wrong is set right
and printed (head size, pre-tokenizer, normaliser), or the file is refused: scaled rotary positions,
tensors without a place, a pre-tokenizer that nobody here knows (then give tokenizer=DIR).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from actors.engines.saved_model import copy_tokenizer
from conf.errors import UserError, in_one_line
from conf.schema import key
from launch.common.cli import main_simple
from launch.common.gguf import (
    Carried,
    GgufFile,
    check_metadata,
    check_vocabulary,
    check_weights,
    check_written,
    read_gguf,
    repair_config,
    repair_tokenizer,
)
from launch.common.outputs import check_output_dir

_MAGIC = b"GGUF"


@dataclass(frozen=True, kw_only=True)
class ImportArgs:
    """What `launch/import_gguf.py` takes."""

    input: str = key("GGUF file to read")
    output: str = key("directory to write: config, tokenizer, safetensors")
    dtype: Literal["float32", "bfloat16"] = key("data type of the written weights", "float32")
    tokenizer: str | None = key(
        "directory with the tokenizer of this model, in place of the file's own", None
    )


def run(args: ImportArgs) -> None:
    """Convert one file."""
    source, target = Path(args.input), check_output_dir(args.output)
    if not source.is_file():
        raise UserError(f"input: {source} is no file; give input=FILE.gguf")
    with source.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"input: {source} is no GGUF file; give input=FILE.gguf")
    own = None if args.tokenizer is None else _tokenizer_directory(args.tokenizer)
    file, carried = read_gguf(source), Carried()
    _convert(args, file, target, own, carried)
    for line in carried.repaired:
        sys.stdout.write(f"repaired: {line}\n")
    for line in carried.left_out:
        sys.stdout.write(f"not carried over: {line}\n")
    sys.stdout.write(f"written to {target}\n")


def _tokenizer_directory(given: str) -> Path:
    directory = Path(given)
    if not (directory / "tokenizer.json").is_file():
        raise UserError(f"tokenizer: {given} holds no tokenizer.json; give tokenizer=DIR")
    return directory


def _convert(
    args: ImportArgs, file: GgufFile, target: Path, own: Path | None, carried: Carried
) -> None:
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
        dtype=getattr(torch, args.dtype),
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
    config_file.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _name_in_transformers(architecture: str) -> str:
    """What transformers calls an architecture of llama.cpp."""
    return {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe"}.get(architecture, architecture)


if __name__ == "__main__":
    sys.exit(main_simple(ImportArgs, run))
