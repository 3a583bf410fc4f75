"""Shape of a model, without loading or fetching it: what `dry_run` estimates memory from.

A local directory (or hub snapshot in the local cache) is read: config.json and the headers of its
safetensors. Hub ids that the shipped experiments name have their published shapes here; so have
directories that a run with such a model in its name has still to write. For others the name may
tell the number of parameters; else the size is unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from conf.errors import UserError
from reward.model.directory import is_size, read_object
from reward.model.files import is_local, num_parameters
from rl.base.files import lack_of

_SIZE_IN_NAME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([BM])(?![a-zA-Z0-9])", re.IGNORECASE)
_UNITS = {"B": 10**9, "M": 10**6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """Of a dense transformer with gated feed-forward layers (Qwen, Llama, ...)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool  # one matrix is embedding and LM head

    @property
    def q_width(self) -> int:
        """Numbers in the queries of one token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Numbers in the keys (or values) of one token."""
        return self.kv_heads * self.head_dim

    def num_adapted(self, rank: int, targets: Sequence[str] | None) -> int:
        """Numbers in the adapters of linear layers; one of another name counts as the largest."""
        hidden, q, kv, wide = self.hidden, self.q_width, self.kv_width, self.intermediate
        sums = {  # numbers of a token that enter the layer, and that leave it
            **{"q_proj": hidden + q, "k_proj": hidden + kv, "v_proj": hidden + kv},
            **{"o_proj": q + hidden, "gate_proj": hidden + wide, "up_proj": hidden + wide},
            "down_proj": wide + hidden,
        }
        names = sums if targets is None else [name.rpartition(".")[2] for name in targets]
        return self.layers * rank * sum(sums.get(name, max(sums.values())) for name in names)

    def num_parameters(self, *, scores: bool = False) -> int:
        """Numbers in the weights of a Qwen3; with `scores` a score head replaces the LM head."""
        attention = 2 * self.hidden * (self.q_width + self.kv_width) + 2 * self.head_dim
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        embedding = self.vocab * self.hidden
        head = self.hidden if scores else (0 if self.tied else embedding)
        return embedding + self.layers * layer + self.hidden + head


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What is known of a model's size."""

    num_parameters: int
    dimensions: Dimensions | None  # None when only the number of parameters is known
    source: str  # in words


def _qwen3(layers: int, hidden: int, heads: int, intermediate: int, *, tied: bool) -> Dimensions:
    return Dimensions(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        intermediate=intermediate,
        vocab=151_936,
        tied=tied,
    )


# From the config.json of each model.
_QWEN3: Mapping[str, Dimensions] = {
    "0.6B": _qwen3(28, 1024, 16, 3072, tied=True),
    "1.7B": _qwen3(28, 2048, 16, 6144, tied=True),
    "4B": _qwen3(36, 2560, 32, 9728, tied=True),
    "8B": _qwen3(36, 4096, 32, 12_288, tied=False),
    "14B": _qwen3(40, 5120, 40, 17_408, tied=False),
    "32B": _qwen3(64, 5120, 64, 25_600, tied=False),
}
_KNOWN: Mapping[str, Dimensions] = {
    f"{family}-{size}{suffix}": dimensions
    for family, suffix in (
        ("Qwen/Qwen3", ""),
        ("Qwen/Qwen3", "-Base"),
        ("LARK-Lab/CodeScaler", ""),
        ("Skywork/Skywork-Reward-V2-Qwen3", ""),
    )
    for size, dimensions in _QWEN3.items()
}


def shape_of(model: str, *, scores: bool) -> ModelShape | None:
    """The size of a directory's or hub id's model; None when nothing tells it. Never downloads.

    `scores`: the model is read as a sequence classifier, which has no LM head.
    """
    directory = Path(model) if is_local(model) else _cached(model)
    if directory is not None and lack_of(directory / "config.json") is None:
        return _shape_on_disk(directory, scores=scores)
    if model in _KNOWN:
        dimensions = _KNOWN[model]
        number = dimensions.num_parameters(scores=scores)
        return ModelShape(
            num_parameters=number, dimensions=dimensions, source="its published shape"
        )
    if directory is not None and not os.path.lexists(directory) and (coming := _of_place(model)):
        number = coming.num_parameters(scores=scores)
        return ModelShape(
            num_parameters=number, dimensions=coming, source="the name of its place, still empty"
        )
    sizes = _SIZE_IN_NAME.findall(model.rpartition("/")[2])
    if not sizes:
        return None
    number, unit = sizes[-1]
    return ModelShape(
        num_parameters=int(float(number) * _UNITS[unit.upper()]),
        dimensions=None,
        source="the size in its name",
    )


def _of_place(path: str) -> Dimensions | None:
    """The shape that a path names, as that of a run that has still to write its model.

    >>> _of_place("outputs/qwen3_1_7b_one_gpu/run/hf") == _QWEN3["1.7B"]
    True
    """
    words = re.sub(r"[^a-z0-9]+", "-", path.lower())
    named = (size for size in _QWEN3 if f"-qwen3-{size.lower().replace('.', '-')}-" in f"-{words}-")
    size = next(named, None)
    return None if size is None else _QWEN3[size]


def _cached(hub_id: str) -> Path | None:
    """The snapshot of a hub id in the local cache."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - only hub ids need it

    try:
        file = try_to_load_from_cache(hub_id, "config.json")
    except ValueError:  # no name that the hub could have
        return None
    return Path(file).parent if isinstance(file, str) else None


def _shape_on_disk(directory: Path, *, scores: bool) -> ModelShape | None:
    try:
        dimensions = _dimensions(read_object(directory / "config.json"))
        stored = num_parameters(directory)
    except UserError:
        return None  # what is wrong with it is reported with the other files of the run
    if stored:
        number, source = stored, "its weight files"
    elif dimensions is not None:
        number, source = dimensions.num_parameters(scores=scores), "its config.json"
    else:
        return None
    return ModelShape(num_parameters=number, dimensions=dimensions, source=source)


def _dimensions(config: Mapping[str, Any]) -> Dimensions | None:
    """None for an architecture with other names, and for numbers that no model can have."""
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    kv_heads = config.get("num_key_value_heads") or heads
    if not is_size(hidden) or not is_size(heads) or not is_size(kv_heads):
        return None
    head_dim = config.get("head_dim") or hidden // heads
    others = [config.get(key) for key in ("num_hidden_layers", "intermediate_size", "vocab_size")]
    if not all(map(is_size, [head_dim, *others])):
        return None
    layers, intermediate, vocab = cast("list[int]", others)
    return Dimensions(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=intermediate,
        vocab=vocab,
        tied=bool(config.get("tie_word_embeddings")),
    )
