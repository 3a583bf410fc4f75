"""Value head -> classifier: `python launch/import_value_head.py input=DIR output=DIR`.

A causal language model with a value head (`v_head.summary`) is what trl and LLaMA-Factory leave as
a reward model, AceCodeRM (`Qwen2ForCausalRM`) among them: its score is a linear map of the last
hidden state of the last token. The same weights become a classifier with one label, which
transformers and vLLM read; the numbers and the data type stay what they are.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.errors import UserError
from conf.schema import key
from launch.common.cli import main_simple
from reward.model.safetensors_files import read_header
from reward.model.written import check_written
from rl.base.files import replacing_directory
from rl.base.outputs import check_new_dir

# Names of a head with one row and perhaps a bias, as trl and OpenRLHF write it.
HEADS = ("v_head.summary", "value_head.summary", "v_head", "value_head")
_LM_HEAD = "lm_head."
_WRAPPER = "pretrained_model."  # of trl, around the language model


@dataclass(frozen=True, kw_only=True)
class ImportArgs:
    """What `launch/import_value_head.py` takes."""

    input: str = key("directory of a causal language model with a value head, in safetensors")
    output: str = key("directory to write: config, tokenizer, safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueHead:
    """Where the head of a model lies."""

    name: str
    has_bias: bool

    def name_of(self, stored: str) -> str | None:
        """What a classifier calls a tensor of the model; None for those of the LM head."""
        name = stored.removeprefix(_WRAPPER)
        if name.startswith(f"{self.name}."):
            return name.replace(self.name, "score", 1)
        return None if name.startswith(_LM_HEAD) else name


def run(args: ImportArgs) -> None:
    """Convert one directory."""
    source, target = Path(args.input), check_new_dir(args.output)
    for name in ("config.json", "tokenizer.json"):
        if not (source / name).is_file():
            raise UserError(f"input: {source} has no {name}; give a Hugging Face model directory")
    head = find_head(source)
    from actors.engines.stored.classifier import (  # noqa: PLC0415 - after the arguments are good
        classifier_of,
        write_classifier,
    )

    architecture = classifier_of(source, has_bias=head.has_bias)
    with replacing_directory(target) as staged:
        dtype = write_classifier(source, staged, architecture, head.name_of)
        check_written(staged)
    sys.stdout.write(
        f"{head.name} with{'' if head.has_bias else 'out'} bias is the head of a {architecture} "
        f"({dtype}), written to {target}\n"
        f"look at it with launch/doctor.py reward_model={target}\n"
    )


def find_head(source: Path) -> ValueHead:
    """The value head among the tensors of a directory.

    Raises:
        UserError: where there is none, or one with more than a row.
    """
    files = tuple(sorted(source.glob("*.safetensors")))
    if not files:
        raise UserError(
            f"input: {source} holds no *.safetensors; save the model with "
            "save_pretrained(safe_serialization=True)"
        )
    shapes = {n: entry.shape for f in files for n, entry in read_header(f).tensors.items()}
    found = [head for head in HEADS if f"{head}.weight" in shapes]
    if not found:
        raise UserError(
            f"input: {source} holds no {HEADS[0]}.weight or {HEADS[2]}.weight; a sequence "
            "classifier needs no conversion, and a language model is a base for launch/train_rm.py"
        )
    shape = tuple(shapes[f"{found[0]}.weight"])
    if len(shape) != 2 or shape[0] != 1:
        raise UserError(
            f"input: {found[0]}.weight of {source} has the shape {list(shape)}, and a score is one "
            "row; a head of several layers cannot be converted"
        )
    return ValueHead(name=found[0], has_bias=f"{found[0]}.bias" in shapes)


if __name__ == "__main__":
    sys.exit(main_simple(ImportArgs, run))
