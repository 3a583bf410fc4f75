"""A GGUF file becomes the model that it states, or is refused with what would be lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from launch.common.cli import main_simple
from launch.import_gguf import ImportArgs, run

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[4] / "assets/minipy/policy"
HEAD_DIM = 32  # where hidden size and heads alone would say 16
CONFIG = Qwen3Config(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=HEAD_DIM,
    max_position_embeddings=128,
    tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
)
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(CONFIG).eval()


def write(
    path: Path,
    model: Qwen3ForCausalLM,
    pre: str = "qwen2",
    without: str | None = None,
    architecture: str = "qwen3",
    **extra: Any,
) -> Path:
    """The model as llama.cpp's converter writes a Qwen3; `extra` are further keys of it."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    for key, value in extra.items():
        add: Any = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{architecture}.{key.replace('__', '.')}", value)
    tokenizer = json.loads((POLICY / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_chat_template((POLICY / "chat_template.jinja").read_text())
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        stated = name.replace("model.layers.", "blk.")
        for ours, theirs in NAMES.items():
            stated = stated.replace(ours, theirs)
        of_qwen3 = "attn_q_norm" in stated or "attn_k_norm" in stated
        if stated != without and not (architecture == "llama" and of_qwen3):
            writer.add_tensor(stated, tensor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def convert(source: Path, target: Path, *more: str) -> int:
    return main_simple(ImportArgs, run, [f"input={source}", f"output={target}", *more])


def test_a_head_size_of_its_own_is_carried_over_and_said(
    model: Qwen3ForCausalLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(write(tmp_path / "m.gguf", model), tmp_path / "hf") == 0
    out = capsys.readouterr().out
    assert "repaired: head_dim 32 (attention.key_length), not 128" in out
    assert "repaired: normaliser NFC" in out
    assert "repaired: vocab_size 512 (rows of the embedding), not 493" in out
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, model(ids).logits)
    assert "quantization_config" not in json.loads((tmp_path / "hf/config.json").read_text())


def test_digits_stand_alone_where_the_file_says_so(
    model: Qwen3ForCausalLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "m.gguf", model, pre="smollm", architecture="llama")
    assert convert(source, tmp_path / "hf") == 0
    assert "repaired: pre-tokenizer smollm" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("x =   12")
    # GPT-2 would say "Ġ12", and leave the space before it out of the others.
    assert [text for text, _ in split] == ["x", "Ġ=", "ĠĠĠ", "1", "2"]


def test_a_tokenizer_that_is_read_by_another_rule_is_refused(
    model: Qwen3ForCausalLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # transformers reads every Qwen3 with the rule of Qwen2, whatever its tokenizer.json says.
    assert convert(write(tmp_path / "m.gguf", model, pre="smollm"), tmp_path / "hf") == 2
    assert "as other tokens than the file states" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pre": "nobodys"}, ["pre-tokenizer", "'nobodys'", "give tokenizer=DIR"]),
        (
            {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0},
            ["qwen3.rope.scaling.type=yarn", "qwen3.rope.scaling.factor=4.0", "something else"],
        ),
        ({"logit_scale": 0.5}, ["qwen3.logit_scale=0.5"]),
        ({"without": "blk.1.ffn_up.weight"}, ["model.layers.1.mlp.up_proj.weight"]),
    ],
)
def test_what_would_be_lost_is_refused_by_name(
    model: Qwen3ForCausalLM,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    words: list[str],
) -> None:
    assert convert(write(tmp_path / "m.gguf", model, **changes), tmp_path / "hf") == 2
    err = capsys.readouterr().err
    for word in words:
        assert word in err
    assert not (tmp_path / "hf").exists()


def test_a_file_that_is_cut_short_is_refused(
    model: Qwen3ForCausalLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write(tmp_path / "m.gguf", model)
    whole.write_bytes(whole.read_bytes()[:3000])
    assert convert(whole, tmp_path / "hf") == 2
    assert "cannot be read as GGUF" in capsys.readouterr().err


def test_a_tokenizer_of_the_same_model_is_taken_and_one_of_another_is_not(
    model: Qwen3ForCausalLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "m.gguf", model, pre="nobodys")
    assert convert(source, tmp_path / "hf", f"tokenizer={POLICY}") == 0
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "hf" / name).read_bytes() == (POLICY / name).read_bytes()
    other = Path(shutil.copytree(POLICY, tmp_path / "other"))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {
        token: index + (index == 400) - (index == 401)
        for token, index in tokenizer["model"]["vocab"].items()
    }
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert convert(source, tmp_path / "hf2", f"tokenizer={other}") == 2
    assert "give the tokenizer of this model" in capsys.readouterr().err
