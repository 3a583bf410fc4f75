"""Value head -> classifier: `python launch/import_value_head.py input=DIR output=DIR`.

A causal language model with a value head (`v_head.summary`) is what trl and LLaMA-Factory leave as
a reward model, AceCodeRM (`Qwen2ForCausalRM`) among them: its score is a linear map of the last
hidden state of the last token. The same weights become a classifier with one label, which
transformers and vLLM read; the numbers and the data type stay what they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.errors import UserError
from conf.schema import key
from launch.common.cli import main_simple
from reward.model.directory import read_object
from reward.model.safetensors_files import INDEX, read_header
from reward.model.written import check_written
from rl.base.files import replacing_directory
from rl.base.outputs import check_output_dir

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
    files: tuple[Path, ...]  # of all weights


def run(args: ImportArgs) -> None:
    """Convert one directory."""
    source, target = Path(args.input), check_output_dir(args.output)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"output: {target} is not empty; give another output=DIR")
    for name in ("config.json", "tokenizer.json"):
        if not (source / name).is_file():
            raise UserError(f"input: {source} has no {name}; give a Hugging Face model directory")
    head = find_head(source)
    architecture, dtype = _architecture(source, head), _convert(source, head, target)
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
    return ValueHead(name=found[0], has_bias=f"{found[0]}.bias" in shapes, files=files)


def _architecture(source: Path, head: ValueHead) -> str:
    """The class of the result: sequence classifiers of transformers have no bias."""
    from transformers import (  # noqa: PLC0415 - seconds, after the arguments are good
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    factory: Any = AutoModelForSequenceClassification
    if head.has_bias:
        factory = AutoModelForTokenClassification
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        return factory._model_mapping[type(config)].__name__
    except (KeyError, ValueError) as error:
        kind = read_object(source / "config.json").get("model_type")
        raise UserError(
            f"input: transformers has no {'token' if head.has_bias else 'sequence'} classifier for "
            f"the model_type {kind!r} of {source}; models of its family cannot be converted"
        ) from error


def _convert(source: Path, head: ValueHead, target: Path) -> str:
    """Write the directory; the data type of its weights."""
    from safetensors.torch import save_file  # noqa: PLC0415

    from actors.engines.stored.saved_model import (  # noqa: PLC0415
        copy_tokenizer,
        one_label,
        write_config,
    )

    weight_map: dict[str, str] = {}
    dtype = ""
    with replacing_directory(target) as staged:
        for number, file in enumerate(head.files, start=1):  # one of them is held at a time
            tensors = dict(_renamed(file, head))
            if not tensors:  # the LM head alone
                continue
            shard = f"model-{number:05d}-of-{len(head.files):05d}.safetensors"
            save_file(tensors, staged / shard, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(tensors, shard)
            bodies = [tensor for name, tensor in tensors.items() if not name.startswith("score.")]
            dtype = str(bodies[0].dtype).removeprefix("torch.") if bodies else dtype
        index = {"metadata": {}, "weight_map": weight_map}
        (staged / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        write_config(source, staged, _architecture(source, head), dtype, one_label())
        copy_tokenizer(source, staged)
        check_written(staged)
    return dtype


def _renamed(file: Path, head: ValueHead) -> Iterator[tuple[str, Any]]:
    """The tensors of a file under the names of a classifier, without the LM head."""
    from safetensors import safe_open  # noqa: PLC0415

    opened: Any = safe_open(file, framework="pt")
    with opened as tensors:
        for stored in tensors.keys():  # noqa: SIM118 - no mapping
            name = stored.removeprefix(_WRAPPER)
            if name.startswith(f"{head.name}."):
                yield name.replace(head.name, "score", 1), tensors.get_tensor(stored)
            elif not name.startswith(_LM_HEAD):
                yield name, tensors.get_tensor(stored)


if __name__ == "__main__":
    sys.exit(main_simple(ImportArgs, run))
