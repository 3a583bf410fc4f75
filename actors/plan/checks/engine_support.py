"""Support of the installed vLLM: what it cannot run here, found without loading it.

vLLM says these things too, from inside an actor and half a minute later, as a validation error of
several lines. Here its registry of models and the classes behind it are read as source text, so
that the answer is that of the version which is installed.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from actors.engines.class_names import engine_name
from actors.engines.specs import Runner
from conf.errors import UserError
from conf.schema import Device, Dtype

# What vLLM's attention for CPUs has kernels for (`CPUAttentionBackend`); a test compares them.
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
_STATEFUL = {"IsHybrid", "HasInnerState", "IsAttentionFree"}
_TABLES = (
    "_TEXT_GENERATION_MODELS",
    "_SEQUENCE_CLASSIFICATION_MODELS",
    "_REWARD_MODELS",
    "_TOKEN_CLASSIFICATION_MODELS",
    "_MULTIMODAL_MODELS",
    "_TRANSFORMERS_SUPPORTED_MODELS",
)
_FORMER = "_PREVIOUSLY_SUPPORTED_MODELS"
# Kinds of layers (`layer_types`) that have no attention which vLLM could take over, where it runs a
# class that its registry does not have on transformers' own code.
_NO_ATTENTION = ("linear_attention", "mamba", "conv", "hybrid", "hybrid_sliding", "moe")
# What an architecture does to logits after its LM head, by the key that states it. A hint for an
# early refusal: what decides is `actors.engines.forward_check`, which looks at the numbers.
_LOGIT_KEYS = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "logits_soft_cap",
    "output_logit_soft_cap",
)


@dataclass(frozen=True, slots=True)
class EngineNeeds:
    """What an engine is asked for."""

    runner: Runner
    device: Device
    trains: bool = False  # log-probs of it are computed by the policy ranks as well


def device_of(placement: str) -> Device:
    """What the engines of a shipped placement run on."""
    return "cpu" if placement == "laptop" else "cuda"


def dtype_of(asked: Literal["auto", Dtype], placement: str) -> Dtype:
    """The data type that is asked for, or that of the device of a shipped placement."""
    if asked != "auto":
        return asked
    return "float32" if device_of(placement) == "cpu" else "bfloat16"


def check_engine(directory: Path, key: str, needs: EngineNeeds) -> None:
    """Refuse a model that no engine here can hold.

    Raises:
        UserError: with the reason.
    """
    config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    names = [str(name) for name in config.get("architectures") or []]
    reason = _reason(config, names[0] if names else "", needs)
    if reason is not None:
        raise UserError(
            f"{key}: {directory} is a {names[0] if names else 'model without architectures'}, "
            f"{reason}; choose another model (see docs/results/architectures.md)"
        )


def engine_note(directory: Path, architecture: str, needs: EngineNeeds) -> str | None:
    """What to tell people before they train an `architecture` that no engine here can hold."""
    config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    reason = _reason(config, architecture, needs)
    if reason is None:
        return None
    return (
        f"no engine here can score what is trained: it will be a {architecture}, {reason}; plain "
        "transformers can"
    )


def _reason(config: Mapping[str, Any], name: str, needs: EngineNeeds) -> str | None:
    text: Mapping[str, Any] = config.get("text_config") or config
    reasons = [
        _head_reason(text) if needs.trains else None,
        _class_reason(name, text, needs),
        _kernel_reason(text) if needs.device == "cpu" else None,
    ]
    return next((reason for reason in reasons if reason is not None), None)


def _head_reason(text: Mapping[str, Any]) -> str | None:
    for key in _LOGIT_KEYS:
        if text.get(key) not in (None, 1, 1.0):
            return (
                f"whose LM head does more than a linear map ({key}={text[key]}), and log-probs are "
                "computed from a linear head"
            )
    return None


def _class_reason(name: str, text: Mapping[str, Any], needs: EngineNeeds) -> str | None:
    if registry() is None:  # no vLLM here: an engine elsewhere will say
        return None
    name = engine_name(name)
    found = known_model(name) or known_model(
        name.replace("ForSequenceClassification", "ForCausalLM")
    )
    if found is None:  # vLLM may still run it through transformers
        return _layer_reason(text)
    if found.dropped_after is not None:
        return f"which vLLM runs up to version {found.dropped_after} only"
    if found.stateful and needs.device == "cpu":
        return (
            "which has recurrent or convolutional layers: vLLM keeps their state between chunks of "
            "a prompt, and sampling with seeds on a CPU takes prompts as a whole"
        )
    if found.multimodal and importlib.util.find_spec("torchvision") is None:
        return "whose class in vLLM also takes images, for which torchvision is missing here"
    return None


def _layer_reason(text: Mapping[str, Any]) -> str | None:
    stated = text.get("layer_types")
    kinds = [kind for kind in _NO_ATTENTION if isinstance(stated, list) and kind in stated]
    if not kinds:
        return None
    return (
        "which is not in vLLM's registry, and what vLLM runs through transformers has attention in "
        f"every layer (layer_types: {', '.join(kinds)})"
    )


def _kernel_reason(text: Mapping[str, Any]) -> str | None:
    size = _head_size(text)
    if size is None or size in CPU_HEAD_SIZES:
        return None
    sizes = ", ".join(map(str, CPU_HEAD_SIZES))
    return f"with heads of {size} numbers, and vLLM's attention for CPUs has kernels for {sizes}"


def _head_size(text: Mapping[str, Any]) -> int | None:
    if text.get("head_dim"):
        return int(text["head_dim"])
    hidden = text.get("hidden_size") or text.get("n_embd")
    heads = text.get("num_attention_heads") or text.get("n_head")
    return int(hidden) // int(heads) if hidden and heads else None


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One architecture of vLLM's registry."""

    stateful: bool = False  # recurrent or convolutional layers
    multimodal: bool = False
    dropped_after: str | None = None  # the last version that runs it


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of vLLM's registry; the file of the class is read when it is asked for."""

    file: Path | None = None
    class_name: str = ""
    multimodal: bool = False
    dropped_after: str | None = None


@cache
def registry() -> Mapping[str, _Entry] | None:
    """Architectures that the installed vLLM knows; None where none is installed."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return None
    models = Path(spec.origin).parent / "model_executor" / "models"
    tree = ast.parse((models / "registry.py").read_text(encoding="utf-8"))
    found: dict[str, _Entry] = {}
    for node in tree.body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        table = node.targets[0].id
        if table not in (*_TABLES, _FORMER) or not isinstance(node.value, ast.Dict):
            continue
        for key, value in zip(node.value.keys, node.value.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                found[str(key.value)] = _Entry(dropped_after=str(value.value))
            if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple):
                module, name = (ast.literal_eval(item) for item in value.elts[:2])
                multimodal = table == "_MULTIMODAL_MODELS"
                found[str(key.value)] = _Entry(models / f"{module}.py", name, multimodal)
    return found


def known_model(name: str) -> KnownModel | None:
    """What the installed vLLM knows of an architecture; None where that is nothing."""
    entry = (registry() or {}).get(name)
    if entry is None:
        return None
    stateful = entry.file is not None and not _STATEFUL.isdisjoint(
        _bases(entry.file).get(entry.class_name, frozenset[str]())
    )
    return KnownModel(
        stateful=stateful, multimodal=entry.multimodal, dropped_after=entry.dropped_after
    )


@cache
def _bases(file: Path) -> Mapping[str, frozenset[str]]:
    """Names of the classes above each class of a file, as far as that file tells."""
    if not file.is_file():
        return {}
    direct = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }

    def above(name: str) -> set[str]:
        return {name}.union(*(above(base) for base in direct.get(name, set()) - {name}))

    return {name: frozenset(above(name)) for name in direct}
