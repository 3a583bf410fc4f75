"""What a training passes through is copied, and what it changes is only that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from actors.engines.specs import TrainSpec
from actors.engines.stored.saved_model import copy_tokenizer
from actors.engines.train_model import rehearse_saving, save_config_and_tokenizer
from actors.stages.export import export_models
from conf.errors import UserError
from conf.schema import PolicyConfig
from rl.base.console import Console
from tests.settings import run_config

pytestmark = pytest.mark.unit

POLICY = PolicyConfig(lr=1e-3, microbatch_tokens=256)

ASSETS = Path(__file__).resolve().parents[4] / "assets/minipy"
PASSED_THROUGH = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ASSETS / "policy", tmp_path / "base"))


def save(base: Path, target: Path, head: str) -> dict[str, object]:
    """Write the small files of a model that was trained from `base`; its config.json."""
    spec = TrainSpec(model_path=str(base), policy=POLICY, total_steps=1, head=head)  # pyright: ignore[reportArgumentType]  # one of the three
    factory = AutoModelForCausalLM if head == "lm" else AutoModelForSequenceClassification
    model = factory.from_config(AutoConfig.from_pretrained(base))
    target.mkdir()
    save_config_and_tokenizer(model, spec, target)
    return json.loads((target / "config.json").read_text())


@pytest.mark.parametrize("head", ["lm", "score"])
def test_tokenizer_and_template_are_those_of_the_base_to_the_byte(
    base: Path, tmp_path: Path, head: str
) -> None:
    for name in ("tokenizer.model", "merges.txt"):
        (base / name).write_bytes(b"\xff of a tokenizer")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates/tools.jinja").write_text("{{ messages }}")
    settings = base / "tokenizer_config.json"
    settings.write_text(settings.read_text() + "\n\n")  # no library would write it like this
    save(base, tmp_path / "hf", head)
    others = ("tokenizer.model", "merges.txt", "additional_chat_templates/tools.jinja")
    for name in (*PASSED_THROUGH, *others):
        assert (tmp_path / "hf" / name).read_bytes() == (base / name).read_bytes()


def test_generation_settings_that_transformers_would_not_save_are_kept(
    base: Path, tmp_path: Path
) -> None:
    text = '{"do_sample": false, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [2, 0]}'
    (base / "generation_config.json").write_text(text)
    save(base, tmp_path / "hf", "lm")
    assert (tmp_path / "hf/generation_config.json").read_text() == text
    save(base, tmp_path / "rm", "score")
    assert not (tmp_path / "rm/generation_config.json").exists()


def test_a_policy_keeps_every_key_of_its_configuration(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    del config["rope_parameters"], config["dtype"]
    # As models of older libraries have it, which look for these very names.
    config |= {"rope_theta": 1e6, "torch_dtype": "bfloat16", "temperature": 0.5, "note": "ours"}
    (base / "config.json").write_text(json.dumps(config))
    written = save(base, tmp_path / "hf", "lm")
    assert written == config | {"torch_dtype": "float32"}
    assert AutoConfig.from_pretrained(tmp_path / "hf").rope_parameters["rope_theta"] == 1e6


def test_a_reward_model_says_one_label_whatever_its_base_had(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["id2label"] = {"0": "wrong", "1": "right"}
    config["label2id"] = {"wrong": 0, "right": 1}
    (base / "config.json").write_text(json.dumps(config))
    written = save(base, tmp_path / "rm", "score")
    assert written["architectures"] == ["Qwen3ForSequenceClassification"]
    read = AutoConfig.from_pretrained(tmp_path / "rm")
    assert (read.num_labels, read.pad_token_id) == (1, 0)


def test_what_can_not_be_written_is_said_when_the_engine_starts(base: Path) -> None:
    spec = TrainSpec(model_path=str(base), policy=POLICY, total_steps=1)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    rehearse_saving(model, spec)
    (base / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"written beside the trained weights .*config\.json"):
        rehearse_saving(model, spec)


def test_a_link_in_the_cache_of_a_hub_becomes_the_file(base: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (base / "tokenizer.json").rename(blob)
    (base / "tokenizer.json").symlink_to(blob)
    (tmp_path / "hf").mkdir()
    copy_tokenizer(base, tmp_path / "hf")
    assert not (tmp_path / "hf/tokenizer.json").is_symlink()
    assert (tmp_path / "hf/tokenizer.json").read_bytes() == blob.read_bytes()


def test_an_export_halves_the_weights_and_copies_the_rest(tmp_path: Path) -> None:
    export_models(
        ASSETS / "policy", ASSETS / "rm", tmp_path, run_config().reward, 0, console=Console()
    )
    for name in ("policy", "rm"):
        weights = load_file(tmp_path / name / "model.safetensors")
        shipped = load_file(ASSETS / name / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
        assert all(torch.equal(weights[key], shipped[key]) for key in shipped)
        for file in PASSED_THROUGH:
            assert (tmp_path / name / file).read_bytes() == (ASSETS / name / file).read_bytes()
        assert json.loads((tmp_path / name / "config.json").read_text())["dtype"] == "float16"
    assert (tmp_path / "policy/generation_config.json").is_file()
    assert (tmp_path / "rm/golden_scores.json").is_file()
