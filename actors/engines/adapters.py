"""LoRA adapters of a trained model: where they go, what they add to a weight, their own files.

peft makes the layers. Nothing else knows of them: engines and exports get whole weights under the
names of the base, in which each adapter is added up (`Weight.whole`), and the base is the model
with its adapters at scale 0. peft is loaded when there are adapters, and not before.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from actors.engines.specs import STATE_FILE
from conf.errors import UserError
from conf.schema import LoraConfig
from reward.model.files import is_local
from rl.text.hub_files import model_digest

if TYPE_CHECKING:
    from peft import LoraConfig as PeftConfig
    from peft.tuners.lora import LoraLayer

_KEY = "policy.lora.layers"
_NAME = "default"  # the name of an adapter that peft gives by itself
_BASE = ".base_layer"  # what peft puts into the names of a layer that has an adapter
_OF_ADAPTERS = (".lora_A.", ".lora_B.")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Weight:
    """A weight of the model as the base names it; the first name is the one that is saved."""

    names: tuple[str, ...]
    base: nn.Parameter
    adapter: LoraLayer | None = None

    @property
    def parts(self) -> list[nn.Parameter]:
        """What it is computed from."""
        if self.adapter is None:
            return [self.base]
        return [self.base, *(_matrix(self.adapter, kind) for kind in "AB")]

    def whole(self) -> Tensor:
        """What a layer without an adapter needs to say the same; its parts have to be gathered.

        Added up in float32, and rounded once to the dtype of the base.
        """
        weight, layer = self.base.detach(), self.adapter
        if layer is None:
            return weight
        a, b = (_matrix(layer, kind).detach().float() for kind in "AB")
        added = (b @ a) * layer.scaling[_NAME]
        turned = isinstance(layer.get_base_layer(), Conv1D)  # holds its weight the other way round
        return (weight.float() + (added.T if turned else added)).to(weight.dtype)


def _matrix(layer: LoraLayer, kind: str) -> nn.Parameter:
    return cast(nn.Parameter, getattr(layer, f"lora_{kind}")[_NAME].weight)


def weights_of(model: PreTrainedModel) -> list[Weight]:
    """Every weight of a model once, adapters added to those that they belong to."""
    modules = dict(model.named_modules())
    found: list[Weight] = []
    for name, parameter in model.named_parameters():
        if any(part in name for part in _OF_ADAPTERS):
            continue
        layer, adapted, kind = name.rpartition(f"{_BASE}.")
        adapter: Any = modules[layer] if adapted and kind == "weight" else None
        named = name.replace(f"{_BASE}.", ".")
        found.append(Weight(names=(named,), base=parameter, adapter=adapter))
    return found


def add_adapters(model: PreTrainedModel, lora: LoraConfig, base: str, seed: int) -> None:
    """Give layers of a model adapters that add nothing yet; whatever else it has is frozen.

    `base` is the directory or hub id that it was loaded from.

    Raises:
        UserError: when the model has no such layers, or smaller ones.
    """
    from peft import LoraConfig as PeftConfig  # noqa: PLC0415 - seconds; only adapters need it
    from peft import inject_adapter_in_model  # noqa: PLC0415

    layers = target_layers(model, lora)
    config = PeftConfig(
        r=lora.rank,
        lora_alpha=cast(int, lora.alpha),  # any number
        target_modules=sorted(lora.layers or {_last(name) for name in layers}),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
        base_model_name_or_path=str(Path(base).resolve()) if is_local(base) else base,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)


@contextmanager
def without_adapters(model: PreTrainedModel) -> Iterator[None]:
    """The base, for the body: what adapters add is multiplied by 0.

    They are computed all the same, so that every pass calls the same modules in the same order,
    by which ZeRO-3 knows what to gather next.
    """
    layers = [layer for layer in map(_adapter, model.modules()) if layer is not None]
    for layer in layers:
        layer.set_scale(_NAME, 0)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_scale(_NAME, 1)


def _adapter(module: nn.Module) -> LoraLayer | None:
    return cast("LoraLayer", module) if hasattr(module, "lora_A") else None


# --- where they go -------------------------------------------------------------------------------


def target_layers(model: PreTrainedModel, lora: LoraConfig) -> dict[str, nn.Module]:
    """The layers of a model that get an adapter, by name.

    Raises:
        UserError: when `policy.lora` names others than linear layers of the blocks, or its rank is
            larger than one of them.
    """
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    linear: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not any(module is end for end in ends)
    }
    known = ",".join(sorted({_last(name) for name in linear}))
    stacked = {_last(name) for name, p in model.named_parameters() if ".experts." in name}
    stacked -= {"weight", "bias"}  # of experts that are layers, which take adapters
    if lora.layers is None and stacked:
        raise UserError(
            f"{_KEY}: null is every linear layer, but the experts of {type(model).__name__} are "
            f"stacked ({', '.join(sorted(stacked))}) and take no adapters; name the layers that "
            f"are to have one, of {known}"
        )
    found: dict[str, nn.Module] = {} if lora.layers else linear
    for target in lora.layers or ():
        matched = {name: layer for name, layer in linear.items() if _is_named(name, target)}
        if not matched or target in stacked:
            why = _why_not(model, target, stacked)
            raise UserError(f"{_KEY}: {target} {why}; give some of {known}")
        found |= matched
    _check_rank(found, lora.rank)
    return found


def _why_not(model: PreTrainedModel, target: str, stacked: set[str]) -> str:
    what = {
        "the LM head": model.get_output_embeddings(),
        "the table of tokens": model.get_input_embeddings(),
    }
    tied = " (they share their weights)" if model.config.tie_word_embeddings else ""
    for about, end in what.items():
        if any(module is end and _is_named(n, target) for n, module in model.named_modules()):
            return f"is {about}{tied}, which takes no adapter"
    if target in stacked:
        return "names stacked experts, which take no adapters"
    return f"is no linear layer of {type(model).__name__}"


def _check_rank(layers: dict[str, nn.Module], rank: int) -> None:
    shapes = {name: _shape(layer) for name, layer in layers.items()}
    smallest = min(shapes, key=lambda name: min(shapes[name]))
    if rank > min(shapes[smallest]):
        rows, columns = shapes[smallest]
        raise UserError(
            f"policy.lora.rank: {rank} is more than the layer {smallest} has, which is of "
            f"{rows} x {columns}; lower it, or leave that layer out of {_KEY}"
        )


def _shape(layer: nn.Module) -> torch.Size:
    weight: Any = layer.weight
    return getattr(weight, "ds_shape", weight.shape)  # of a weight that ZeRO-3 took apart


def _is_named(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


# --- files ---------------------------------------------------------------------------------------


def adapter_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The trained numbers, under the names that they have in a file of peft."""
    return {
        f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": parameter
        for name, parameter in model.named_parameters()
        if any(part in name for part in _OF_ADAPTERS)
    }


def save_adapter_config(model: PreTrainedModel, directory: Path) -> None:
    """Write the `adapter_config.json` of a model that has adapters."""
    config = copy.copy(cast("dict[str, PeftConfig]", model.peft_config)[_NAME])
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules or ())  # a set, whose order is by chance
    config.save_pretrained(str(directory))


def base_digest(model: str) -> str:
    """The identity of a base: its weights and small files, wherever they lie."""
    directory = (
        Path(model) if is_local(model) else Path(snapshot_download(model, local_files_only=True))
    )
    return model_digest(directory)


def check_base(checkpoint: Path, model: str) -> None:
    """Refuse a base that the adapters of a checkpoint were not trained on.

    Raises:
        UserError: naming both.
    """
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    if state.get("base") != base_digest(model):
        raise UserError(
            f"model.path: {model} is not the model that the adapters of {checkpoint} were trained "
            "on (its files have other content); give that model, or another name="
        )
