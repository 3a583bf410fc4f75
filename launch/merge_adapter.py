"""Adapters and their base -> one model: `python launch/merge_adapter.py input=DIR output=DIR`.

`input` is a directory as peft writes it: `adapter/` of a run or of a checkpoint, or one that was
trained elsewhere, of a policy or of a reward model. The result is what a run, an evaluation or a
server takes for a model. The sum is taken in float32, and rounded once.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.errors import UserError
from conf.schema import Dtype, key
from launch.common.cli import main_simple
from reward.model.directory import ADAPTER_CONFIG, is_adapter, read_object
from reward.model.files import find_model
from reward.model.loading import first_line
from reward.model.written import check_written
from rl.base.files import replacing_directory
from rl.base.outputs import check_new_dir

_WEIGHTS = "adapter_model.safetensors"
_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}


@dataclass(frozen=True, kw_only=True)
class MergeArgs:
    """What `launch/merge_adapter.py` takes."""

    input: str = key("directory with adapter_config.json and adapter_model.safetensors")
    output: str = key("directory to write: config, tokenizer, safetensors")
    base: str | None = key(
        "directory or hub id of the model that the adapters were trained on; null is what "
        "adapter_config.json names",
        None,
    )
    dtype: Dtype | None = key(
        "data type of the written weights; null is that of the adapters", None
    )


def run(args: MergeArgs) -> None:
    """Merge one directory of adapters."""
    source, target = Path(args.input), check_new_dir(args.output)
    if not is_adapter(source) or not (source / _WEIGHTS).is_file():
        raise UserError(
            f"input: {source} holds no {ADAPTER_CONFIG} with {_WEIGHTS}; give the directory of an "
            "adapter, such as outputs/quickstart/run/adapter"
        )
    settings = read_object(source / ADAPTER_CONFIG)
    base = args.base or settings.get("base_model_name_or_path")
    if not base:
        raise UserError(f"base: {source / ADAPTER_CONFIG} names none; give base=DIR or a hub id")
    find_model(base, "base")
    task = settings.get("task_type") or "CAUSAL_LM"
    if task not in _CLASSES:
        raise UserError(
            f"input: {source} is an adapter for {task}; one of {', '.join(_CLASSES)} can be merged"
        )
    _write(*_merged(source, base, _CLASSES[task]), base, target, args.dtype)
    sys.stdout.write(f"written to {target}\n")


def _merged(source: Path, base: str, factory: str) -> tuple[Any, str]:
    """The base with the adapters added up, in float32; and the dtype of the adapters."""
    import torch  # noqa: PLC0415 - seconds, after the arguments are good
    import transformers  # noqa: PLC0415
    from peft import PeftModel, get_peft_model_state_dict  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    given = load_file(source / _WEIGHTS)
    options = {"num_labels": 1} if factory != _CLASSES["CAUSAL_LM"] else {}
    model = getattr(transformers, factory).from_pretrained(base, dtype=torch.float32, **options)
    try:
        adapted: Any = PeftModel.from_pretrained(model, source)
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"input: {source} does not fit its base {base} ({first_line(error)}); give the model "
            "that it was trained on as base="
        ) from error
    known = get_peft_model_state_dict(adapted)
    other = sorted(known.keys() ^ given.keys())
    if other:
        raise UserError(
            f"input: {source} and its base {base} do not fit: {other[0]} is in one of them alone, "
            f"as are {len(other) - 1} more; give the model that it was trained on as base="
        )
    dtype = str(next(iter(given.values())).dtype).removeprefix("torch.")
    return adapted.merge_and_unload(), dtype


def _write(model: Any, dtype: str, base: str, target: Path, asked: Dtype | None) -> None:  # noqa: ANN401
    import torch  # noqa: PLC0415

    from actors.engines.stored.saved_model import (  # noqa: PLC0415
        copy_generation,
        copy_tokenizer,
        one_label,
        small_files,
        write_config,
    )

    dtype, files = asked or dtype, small_files(base)
    changes = {} if model.can_generate() else one_label()
    with replacing_directory(target) as staged:
        model.to(getattr(torch, dtype)).save_pretrained(staged)
        write_config(files, staged, type(model).__name__, dtype, changes)
        copy_tokenizer(files, staged)
        copy_generation(files, staged)
        check_written(staged)


if __name__ == "__main__":
    sys.exit(main_simple(MergeArgs, run))
