"""What no engine here can run is refused with the reason, without loading an engine."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from actors.engines.class_names import engine_name
from actors.plan.checks.engine_support import (
    CPU_HEAD_SIZES,
    EngineNeeds,
    check_engine,
    engine_note,
    known_model,
    registry,
)
from conf.errors import UserError

pytestmark = pytest.mark.unit

POLICY_ON_CPU = EngineNeeds("generate", "cpu", trains=True)


def model(tmp_path: Path, architecture: str, **fields: Any) -> Path:
    config = {"architectures": [architecture], "head_dim": 32, **fields}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("architecture", "fields", "reason"),
    [
        ("Lfm2ForCausalLM", {}, "recurrent or convolutional layers"),
        ("Qwen3_5ForCausalLM", {}, "recurrent or convolutional layers"),
        ("FalconH1ForCausalLM", {"lm_head_multiplier": 0.5}, "lm_head_multiplier=0.5"),
        ("MambaForCausalLM", {}, "recurrent or convolutional layers"),
        ("LlamaForCausalLM", {"head_dim": 16}, "heads of 16 numbers"),
        ("LlamaForCausalLM", {"head_dim": None, "hidden_size": 96, "num_attention_heads": 4}, "24"),
        ("GPT2LMHeadModel", {"head_dim": None, "n_embd": 64, "n_head": 4}, "heads of 16"),
        ("GraniteForCausalLM", {"logits_scaling": 8.0}, "logits_scaling=8.0"),
        ("MPTForCausalLM", {}, "up to version 0.28.0 only"),
    ],
)
def test_a_policy_that_the_engine_cannot_run_is_refused(
    tmp_path: Path, architecture: str, fields: dict[str, Any], reason: str
):
    with pytest.raises(UserError) as caught:
        check_engine(model(tmp_path, architecture, **fields), "model.path", POLICY_ON_CPU)
    message = str(caught.value)
    assert message.startswith(f"model.path: {tmp_path} is a {architecture}, ")
    assert reason in message


@pytest.mark.parametrize(
    "architecture", ["Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "GPTNeoXForCausalLM", "MyOwn"]
)
def test_the_others_are_left_to_the_engine(tmp_path: Path, architecture: str):
    check_engine(model(tmp_path, architecture), "model.path", POLICY_ON_CPU)


def test_a_head_that_is_never_trained_may_do_what_it_likes(tmp_path: Path):
    granite = model(tmp_path, "GraniteForCausalLM", logits_scaling=8.0)
    check_engine(granite, "model", EngineNeeds("generate", "cpu"))


def test_recurrent_layers_are_the_business_of_a_gpu_there(tmp_path: Path):
    check_engine(model(tmp_path, "Lfm2ForCausalLM"), "model", EngineNeeds("generate", "cuda"))


def test_a_classifier_is_what_its_language_model_is(tmp_path: Path):
    directory = model(tmp_path, "Lfm2ForSequenceClassification")
    with pytest.raises(UserError, match="recurrent"):
        check_engine(directory, "reward.model", EngineNeeds("pooling", "cpu"))


def test_layers_without_attention_need_a_class_that_the_engine_knows(tmp_path: Path):
    layers = ["linear_attention", "full_attention"]
    directory = model(tmp_path, "Qwen3_5TextForSequenceClassification", layer_types=layers)
    with pytest.raises(UserError, match=r"not in vLLM's registry.*\(layer_types: linear_attention"):
        check_engine(directory, "model", EngineNeeds("pooling", "cuda"))
    attends = ["sliding_attention", "full_attention"]
    gemma = model(tmp_path, "Gemma3TextForSequenceClassification", layer_types=attends)
    check_engine(gemma, "model", EngineNeeds("pooling", "cuda"))


def test_an_engine_is_told_a_name_whose_language_model_it_has():
    def language_model(name: str) -> str:
        return name.replace("ForSequenceClassification", "ForCausalLM")

    saved = "Gemma3TextForSequenceClassification"
    assert known_model(language_model(saved)) is None
    assert known_model(language_model(engine_name(saved))) is not None
    assert engine_name("Qwen3ForSequenceClassification") == "Qwen3ForSequenceClassification"


def test_what_no_engine_will_score_is_said_before_it_is_trained(tmp_path: Path):
    base = model(tmp_path, "Qwen3_5ForCausalLM", layer_types=["linear_attention"])
    needs = EngineNeeds("pooling", "cpu")
    note = engine_note(base, "Qwen3_5TextForSequenceClassification", needs)
    assert note is not None and "it will be a Qwen3_5TextForSequenceClassification, which" in note
    assert engine_note(model(tmp_path, "Qwen3ForCausalLM"), "Qwen3ForCausalLM", needs) is None


def test_the_head_sizes_are_those_of_the_installed_engine():
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None and registry()
    file = Path(spec.origin).parent / "v1" / "attention" / "backends" / "cpu_attn.py"
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "get_supported_head_sizes"
    ]
    (returned,) = [node for node in ast.walk(functions[0]) if isinstance(node, ast.Return)]
    assert returned.value is not None
    assert tuple(ast.literal_eval(returned.value)) == CPU_HEAD_SIZES
