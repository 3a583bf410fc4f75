"""Randomly initialised models of many families, two layers each, with the tokenizer of minipy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
)

TOKENIZER = Path(__file__).resolve().parents[2] / "assets/minipy/policy"
_HIDDEN, _LAYERS, _HEADS, _HEAD_DIM, _POSITIONS = 128, 2, 4, 32, 512

_COMMON: Mapping[str, Any] = {
    "hidden_size": _HIDDEN,
    "intermediate_size": 256,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "max_position_embeddings": _POSITIONS,
}
_GROUPED: Mapping[str, Any] = {**_COMMON, "num_key_value_heads": 2}
_WITH_HEAD_DIM: Mapping[str, Any] = {**_GROUPED, "head_dim": _HEAD_DIM}
_LINEAR: Mapping[str, Any] = {  # of Qwen3.5's gated delta nets
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}

# By the name in the table: `model_type` of transformers, and what makes it small.
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Qwen2": ("qwen2", _GROUPED),
    "Qwen3": ("qwen3", _WITH_HEAD_DIM),
    "Qwen3-MoE": (
        "qwen3_moe",
        {
            **_WITH_HEAD_DIM,
            "moe_intermediate_size": 64,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
    ),
    "Qwen3.5": (
        "qwen3_5_text",
        {**_WITH_HEAD_DIM, **_LINEAR, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "Llama": ("llama", _WITH_HEAD_DIM),
    "Mistral": ("mistral", {**_WITH_HEAD_DIM, "sliding_window": None}),
    "Gemma 3": (
        "gemma3_text",
        {
            **_WITH_HEAD_DIM,
            "query_pre_attn_scalar": _HEAD_DIM,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "Phi-3": ("phi3", {**_GROUPED, "original_max_position_embeddings": _POSITIONS}),
    "GPT-2": (
        "gpt2",
        {"n_embd": _HIDDEN, "n_layer": _LAYERS, "n_head": _HEADS, "n_positions": _POSITIONS},
    ),
    "GPT-NeoX": ("gpt_neox", _COMMON),
    "OPT": (
        "opt",
        {
            **{name: value for name, value in _COMMON.items() if name != "intermediate_size"},
            "ffn_dim": 256,
            "word_embed_proj_dim": _HIDDEN,
        },
    ),
    "Bloom": ("bloom", {"hidden_size": _HIDDEN, "n_layer": _LAYERS, "n_head": _HEADS}),
    "Falcon-H1": (
        "falcon_h1",
        {
            **_WITH_HEAD_DIM,
            "mamba_d_ssm": 128,
            "mamba_n_heads": 4,
            "mamba_d_head": 32,
            "mamba_d_state": 16,
            "mamba_n_groups": 1,
            "lm_head_multiplier": 0.5,
        },
    ),
    "Granite": ("granite", {**_GROUPED, "logits_scaling": 2.0}),
    "LFM2": (
        "lfm2",
        {**_GROUPED, "full_attn_idxs": [1], "layer_types": ["conv", "full_attention"]},
    ),
}


def tiny_config(
    family: str,
    tokenizer: Any,  # noqa: ANN401 - no typed base
    fields: Mapping[str, Any] = MappingProxyType({}),
) -> PreTrainedConfig:
    """The configuration of one family in small, but for the `fields` that are given."""
    model_type, small = FAMILIES[family]
    fields = {"vocab_size": 512, **small, **fields}
    return AutoConfig.for_model(
        model_type,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
        **fields,
    )


def make_tiny(
    family: str,
    directory: Path,
    *,
    scores: bool = False,
    fields: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write a random model of `family`, a reward model with `scores`, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    config = tiny_config(family, tokenizer, fields)
    if scores:
        config.num_labels = 1
    make: Callable[..., Any] = (
        AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    ).from_config
    torch.manual_seed(1)
    model = make(config)
    with torch.no_grad():  # as it is made, a random model says nearly the same of every token
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "conv" not in name:
                parameter.normal_(std=0.08)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
