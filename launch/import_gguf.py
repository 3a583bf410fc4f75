"""GGUF file -> Hugging Face directory: `python launch/import_gguf.py input=FILE output=DIR`.

vLLM, DeepSpeed and transformers then all load the same safetensors. Quantised weights are widened;
what the quantisation lost is lost.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.schema import key
from launch.common.cli import main_simple
from launch.common.outputs import check_output_dir
from rl.errors import UserError

_MAGIC = b"GGUF"


@dataclass(frozen=True, kw_only=True)
class ImportArgs:
    """What `launch/import_gguf.py` takes."""

    input: str = key("GGUF file")
    output: str = key("directory to write: config, tokenizer, safetensors")
    dtype: Literal["float32", "bfloat16"] = key("of the written weights", "float32")


def run(args: ImportArgs) -> None:
    """Convert one file."""
    source, target = Path(args.input), check_output_dir(args.output)
    if not source.is_file():
        raise UserError(f"input: {source} is no file; give input=FILE.gguf")
    with source.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"input: {source} is no GGUF file; give input=FILE.gguf")
    import torch  # noqa: PLC0415 - after the arguments are good
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=getattr(torch, args.dtype),
    )
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    # The weights are plain again, and must not be announced as quantised.
    config_file = target / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main_simple(ImportArgs, run))
