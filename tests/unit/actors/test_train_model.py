"""The model that is trained reads its heads from wherever the checkpoint lies."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from actors.train_model import TrainSpec, load_model, save_config_and_tokenizer
from rl.errors import UserError
from rl.tiny_model import make_policy

pytestmark = pytest.mark.unit

HUB_ID = "someone/tiny"


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory of a model with an LM head of its own, as the hub's cache keeps it."""
    cache = tmp_path / "models--someone--tiny"
    snapshot = cache / "snapshots" / "0123"
    make_policy(snapshot, ["def f(x): return x"], seed=0, tied=False)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return snapshot


def spec(model: str) -> TrainSpec:
    return TrainSpec(model_path=model, head="score_lm", lr=1e-3, total_steps=1)


@pytest.mark.parametrize("by_hub_id", [True, False])
def test_the_lm_regulariser_reads_the_head_of_the_checkpoint(fetched: Path, by_hub_id: bool):
    found = load_model(spec(HUB_ID if by_hub_id else str(fetched)))
    wanted = AutoModelForCausalLM.from_pretrained(fetched, dtype=torch.float32).lm_head.weight
    assert found.lm_head is not None
    assert torch.equal(found.lm_head.weight, wanted)


def test_a_checkpoint_without_an_lm_head_is_refused_by_name(fetched: Path, tmp_path: Path):
    classifier = AutoModelForSequenceClassification.from_pretrained(fetched, num_labels=1)
    classifier.save_pretrained(tmp_path / "rm")
    with pytest.raises(UserError, match=r"rm holds no lm_head\.weight.*set lm_coef=0"):
        load_model(spec(str(tmp_path / "rm")))


def test_what_is_saved_pads_and_asks_as_the_training_did(fetched: Path, tmp_path: Path):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    made = TrainSpec(
        model_path=str(fetched),
        head="score",
        lr=1e-3,
        total_steps=1,
        chat_template=template,
        pad_token_id=1,
    )
    target = tmp_path / "saved"
    save_config_and_tokenizer(load_model(made).model, made, target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert AutoConfig.from_pretrained(target).pad_token_id == tokenizer.pad_token_id == 1
    assert tokenizer.chat_template == template
