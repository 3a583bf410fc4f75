"""What a run or peft leaves as adapters becomes one model, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from conf.errors import UserError
from launch.merge_adapter import MergeArgs, run
from reward.model.files import find_model
from tests.settings import POLICY, REWARD_MODEL

pytestmark = pytest.mark.unit

IDS = torch.arange(3, 60)[None]


def adapter(directory: Path, base: Path = POLICY, task: str = "CAUSAL_LM", **more: Any) -> Any:
    """Adapters that somebody has trained elsewhere, with peft alone."""
    of_text = task == "CAUSAL_LM"
    factory: Any = AutoModelForCausalLM if of_text else AutoModelForSequenceClassification
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type=task)
    for name, value in more.items():
        setattr(config, name, value)
    model: Any = get_peft_model(factory.from_pretrained(base, dtype=torch.float32), config)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(directory)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_a_merged_policy_says_what_it_said_with_its_adapters(tmp_path: Path):
    trained = adapter(tmp_path / "adapter")
    run(MergeArgs(input=str(tmp_path / "adapter"), output=str(tmp_path / "m")))
    assert find_model(str(tmp_path / "m"), "model.path") == tmp_path / "m"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(merged), logits(trained), atol=1e-4, rtol=0)
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "m" / name).read_bytes() == (POLICY / name).read_bytes()
    config, base = (json.loads((d / "config.json").read_text()) for d in (tmp_path / "m", POLICY))
    assert config == base | {"dtype": "float32"}


def test_a_reward_model_is_merged_with_its_score_head(tmp_path: Path):
    trained = adapter(tmp_path / "adapter", REWARD_MODEL, "SEQ_CLS", use_rslora=True)
    asked = MergeArgs(input=str(tmp_path / "adapter"), output=str(tmp_path / "m"), dtype="float32")
    run(asked)
    factory = AutoModelForSequenceClassification
    merged = factory.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(merged), logits(trained), atol=1e-4, rtol=0)


def refusal(source: Path, output: Path, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        run(MergeArgs(input=str(source), output=str(output), **more))
    assert not list(output.glob("*.safetensors"))
    return str(caught.value)


def test_what_is_no_adapter_or_fits_another_base_is_refused(tmp_path: Path):
    assert "input: " in refusal(POLICY, tmp_path / "m")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    adapter(tmp_path / "adapter")
    assert "output: " in refusal(tmp_path / "adapter", tmp_path / "full")
    text = refusal(tmp_path / "adapter", tmp_path / "m", base=str(tmp_path / "gone"))
    assert text.startswith("base: the model directory") and "does not exist" in text
    path = tmp_path / "adapter/adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"task_type": "SEQ_2_SEQ_LM"}))
    assert "is an adapter for SEQ_2_SEQ_LM" in refusal(tmp_path / "adapter", tmp_path / "m")
    path.write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    assert "is in one of them alone, as are 7 more" in refusal(tmp_path / "adapter", tmp_path / "m")
    path.write_text(json.dumps(config | {"r": 8}))
    assert "does not fit its base" in refusal(tmp_path / "adapter", tmp_path / "m")
    path.write_text(json.dumps(config | {"base_model_name_or_path": None}))
    assert "names none; give base=DIR" in refusal(tmp_path / "adapter", tmp_path / "m")
