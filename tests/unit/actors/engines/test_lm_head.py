"""The LM head is found where it lies; a model whose logits are more than rows of it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    MixtralConfig,
    ModernBertDecoderConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from actors.engines.stored.lm_head import difference_head, find_lm_head
from conf.errors import UserError

pytestmark = pytest.mark.unit

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write(directory: Path, config: PreTrainedConfig) -> Path:
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        (Qwen3Config(**SIZES, tie_word_embeddings=True), ("model.embed_tokens.weight",)),
        (Qwen3Config(**SIZES, tie_word_embeddings=False), ("lm_head.weight",)),
        (MixtralConfig(**SIZES, num_local_experts=2), ("lm_head.weight",)),
        (GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=2), ("transformer.wte.weight",)),
    ],
    ids=["tied", "untied", "experts", "gpt2"],
)
def test_the_tensor_that_holds_the_head_is_named(
    tmp_path: Path, config: PreTrainedConfig, weights: tuple[str, ...]
) -> None:
    head = find_lm_head(write(tmp_path / "lm", config))
    assert (head.weights, head.bias) == (weights, None)
    assert head.name_of("lm_head.weight") is None and head.name_of(weights[0]) in (None, weights[0])


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        (Gemma2Config, {"final_logit_softcapping": None}),
        (GraniteConfig, {"logits_scaling": 1.0}),
        (CohereConfig, {"logit_scale": 1.0}),
    ],
    ids=["bent", "divided", "scaled"],
)
def test_logits_that_are_scaled_or_bent_are_refused(
    tmp_path: Path, config: Callable[..., PreTrainedConfig], changed: dict[str, Any]
) -> None:
    more = {"logits_scaling": 8.0} if config is GraniteConfig else {}
    with pytest.raises(UserError, match=r"^input: .*does more to a logit than a linear map"):
        find_lm_head(write(tmp_path / "odd", config(**SIZES, **more)))
    find_lm_head(write(tmp_path / "plain", config(**SIZES, **changed)))


def test_layers_between_the_body_and_the_head_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^input: .*cannot be converted"):
        find_lm_head(write(tmp_path / "lm", ModernBertDecoderConfig(**SIZES)))


def test_of_two_heads_in_the_files_both_have_to_say_the_same(tmp_path: Path) -> None:
    source = write(tmp_path / "lm", Qwen3Config(**SIZES, tie_word_embeddings=True))
    tensors = load_file(source / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": embedding.clone()}, source / "model.safetensors")
    row = difference_head(source, find_lm_head(source), 5, 7)["score.weight"]
    assert torch.equal(row[0], embedding[5] - embedding[7])
    other = torch.randn_like(embedding)
    save_file(tensors | {"lm_head.weight": other}, source / "model.safetensors")
    with pytest.raises(UserError, match=r"ties its LM head .* with other numbers"):
        difference_head(source, find_lm_head(source), 5, 7)
