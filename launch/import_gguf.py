"""GGUF file -> Hugging Face directory: `python launch/import_gguf.py input=FILE output=DIR`.

vLLM, DeepSpeed and transformers then all load the same safetensors. Quantised weights are widened;
what the quantisation lost is lost. What the conversion of transformers would get wrong is set right
and printed (head size, pre-tokenizer, normaliser), or the file is refused: scaled rotary positions,
tensors without a place, a pre-tokenizer that nobody here knows (then give tokenizer=DIR).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.errors import UserError
from conf.schema import Dtype, key
from launch.common.cli import main_simple
from launch.stored_gguf.conversion import convert
from launch.stored_gguf.files import Carried, read_gguf
from rl.base.outputs import check_output_dir

_MAGIC = b"GGUF"


@dataclass(frozen=True, kw_only=True)
class ImportArgs:
    """What `launch/import_gguf.py` takes."""

    input: str = key("GGUF file to read")
    output: str = key("directory to write: config, tokenizer, safetensors")
    dtype: Dtype = key("data type of the written weights", "float32")
    tokenizer: str | None = key(
        "directory with the tokenizer of this model, in place of the file's own", None
    )


def run(args: ImportArgs) -> None:
    """Convert one file."""
    source, target = Path(args.input), check_output_dir(args.output)
    if not source.is_file():
        raise UserError(f"input: {source} is not a file; give input=FILE.gguf")
    with source.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"input: {source} is not a GGUF file; give input=FILE.gguf")
    own = None if args.tokenizer is None else _tokenizer_directory(args.tokenizer)
    file, carried = read_gguf(source), Carried()
    convert(file, target, args.dtype, own, carried)
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


if __name__ == "__main__":
    sys.exit(main_simple(ImportArgs, run))
