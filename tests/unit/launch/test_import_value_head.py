"""A value head becomes a classifier that scores what it scored; what is none is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from actors.plan.reward_group import reward_config
from conf.commands.reward_model import RewardGroupArgs
from conf.errors import UserError
from launch.common.findings import PROBES, fitting_adapters, model_findings, write_golden
from launch.import_value_head import ImportArgs, run
from reward.model.files import check_reward_model
from reward.model.golden import read_golden_scores
from reward.model.text_path import TextPath
from tests.settings import REWARD_MODEL

pytestmark = pytest.mark.unit

WEIGHTS = "model.safetensors"


def make(directory: Path, *, bias: float | None = 0.7, tied: bool = False, prefix: str = "") -> Any:
    """A random language model with a value head, in float32; what it scores."""
    shutil.copytree(REWARD_MODEL, directory)
    (directory / "golden_scores.json").unlink()
    known = json.loads((REWARD_MODEL / "config.json").read_text())
    config = Qwen2Config(
        vocab_size=known["vocab_size"],
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        pad_token_id=known["pad_token_id"],
        eos_token_id=known["eos_token_id"],
        dtype="float32",
    )
    torch.manual_seed(4)
    model = Qwen2ForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    head = torch.nn.Linear(64, 1)
    with torch.no_grad():
        head.weight.normal_(std=0.5)
        head.bias.fill_(bias or 0.0)
    model.save_pretrained(directory)
    tensors = {f"{prefix}{name}": t for name, t in load_file(directory / WEIGHTS).items()}
    tensors["v_head.summary.weight"] = head.weight.detach()
    if bias is not None:
        tensors["v_head.summary.bias"] = head.bias.detach()
    save_file(tensors, directory / WEIGHTS)
    stored = json.loads((directory / "config.json").read_text())
    stored["architectures"] = ["Qwen2ForCausalRM"]
    (directory / "config.json").write_text(json.dumps(stored))

    def score(ids: torch.Tensor) -> torch.Tensor:
        """As the authors' class: the head, on the last hidden state of the last token."""
        with torch.no_grad():
            hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
            assert hidden is not None
            return head(hidden[-1])[:, -1, 0]

    return score


def converted(tmp_path: Path) -> Path:
    target = tmp_path / "rm"
    run(ImportArgs(input=str(tmp_path / "raw"), output=str(target)))
    return target


@pytest.mark.parametrize(
    ("tied", "prefix"), [(False, ""), (True, ""), (False, "pretrained_model.")]
)
def test_a_head_with_a_bias_scores_what_it_scored(tmp_path: Path, *, tied: bool, prefix: str):
    score = make(tmp_path / "raw", tied=tied, prefix=prefix)
    target = converted(tmp_path)
    check_reward_model(str(target), "acecoder", 256)
    model = AutoModelForTokenClassification.from_pretrained(target, dtype=torch.float32).eval()
    ids = torch.arange(5, 90)[None]
    with torch.no_grad():
        ours = model(input_ids=ids).logits[:, -1, 0]
    assert abs(ours - score(ids)).item() < 1e-5
    assert abs(score(ids)).item() > 0.01


def test_a_head_without_a_bias_becomes_a_sequence_classifier(tmp_path: Path):
    score = make(tmp_path / "raw", bias=None)
    target = converted(tmp_path)
    assert fitting_adapters(str(target)) == ["sequence_classifier", "codescaler", "acecoder"]
    model = AutoModelForSequenceClassification.from_pretrained(target, dtype=torch.float32).eval()
    ids = torch.arange(5, 90)[None]
    with torch.no_grad():
        assert abs(model(input_ids=ids).logits[0, 0] - score(ids)).item() < 1e-5


def test_golden_scores_of_a_head_with_a_bias_have_it(tmp_path: Path):
    score = make(tmp_path / "raw")
    target = converted(tmp_path)
    assert fitting_adapters(str(target)) == ["acecoder"]
    write_golden(str(target), "acecoder", tmp_path / "golden.json")
    cfg = reward_config(str(target), RewardGroupArgs(adapter="acecoder"))
    text_path = TextPath.load(str(target), "acecoder", cfg.reward.max_tokens)
    for (question, code), stored in zip(
        PROBES, read_golden_scores(tmp_path / "golden.json"), strict=True
    ):
        ids = torch.from_numpy(text_path.encode(question, code).token_ids.astype("int64"))[None]
        assert abs(stored.score - score(ids).item()) < 1e-5


def test_a_directory_with_a_value_head_is_refused_with_the_command(tmp_path: Path):
    make(tmp_path / "raw")
    with pytest.raises(UserError, match=r"launch/import_value_head\.py input=.*raw output=DIR"):
        check_reward_model(str(tmp_path / "raw"), "acecoder", 256)
    remarks = [finding.remark for finding in model_findings(str(tmp_path / "raw"))]
    assert any("launch/import_value_head.py" in remark for remark in remarks)


def test_the_head_may_lie_in_a_file_of_its_own(tmp_path: Path):
    score = make(tmp_path / "raw")
    tensors = load_file(tmp_path / "raw" / WEIGHTS)
    head = {name: tensors.pop(name) for name in list(tensors) if name.startswith("v_head")}
    save_file(tensors, tmp_path / "raw" / WEIGHTS)
    save_file(head, tmp_path / "raw/value_head.safetensors")
    target = converted(tmp_path)
    check_reward_model(str(target), "acecoder", 256)
    model = AutoModelForTokenClassification.from_pretrained(target, dtype=torch.float32).eval()
    ids = torch.arange(5, 90)[None]
    with torch.no_grad():
        assert abs(model(input_ids=ids).logits[0, -1, 0] - score(ids)).item() < 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"v_head.summary.weight": torch.zeros(2, 64)}, r"the shape \[2, 64\]"),
        ({"v_head.summary.weight": None, "v_head.summary.bias": None}, "needs no conversion"),
    ],
)
def test_what_is_no_head_with_one_row_is_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], said: str
):
    make(tmp_path / "raw")
    tensors = load_file(tmp_path / "raw" / WEIGHTS) | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, tmp_path / "raw" / WEIGHTS)
    with pytest.raises(UserError, match=said):
        converted(tmp_path)
    assert not (tmp_path / "rm").exists()
