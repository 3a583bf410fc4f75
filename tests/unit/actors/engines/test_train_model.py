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

from actors.engines.specs import TrainSpec
from actors.engines.train_model import load_model, save_config_and_tokenizer
from conf.errors import UserError
from conf.schema import PolicyConfig
from reward.model.golden import GOLDEN_SCORES, read_golden_scores
from reward.model.read_out import choose_padding
from reward.model.text_path import TextPath
from reward.train.pair_batches import write_golden_scores
from rl.problems.tiny_model import make_policy
from tests.unit.tokenizer_kinds import KINDS, write_classifier

pytestmark = pytest.mark.unit

POLICY = PolicyConfig(lr=1e-3, microbatch_tokens=256)

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
    return TrainSpec(model_path=model, head="score_lm", policy=POLICY, total_steps=1)


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
        policy=POLICY,
        total_steps=1,
        chat_template=template,
        pad_token_id=1,
    )
    target = tmp_path / "saved"
    save_config_and_tokenizer(load_model(made).model, made, target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert AutoConfig.from_pretrained(target).pad_token_id == tokenizer.pad_token_id == 1
    assert tokenizer.chat_template == template


def test_a_base_without_padding_whose_texts_end_with_its_end_token_is_read_right(tmp_path: Path):
    base, target = tmp_path / "base", tmp_path / "rm"
    tokenizer = write_classifier(KINDS["mistral"], base)
    assert tokenizer.pad_token_id is None
    path = TextPath.load(str(base), "sequence_classifier", 512, reads_last=True)
    ids = path.encode("Add.", "x = 1").token_ids.tolist()
    assert ids[-1] == tokenizer.eos_token_id
    pad = choose_padding(path.tokenizer, path.last_ids(), None, "model")
    made = TrainSpec(
        model_path=str(base), head="score", policy=POLICY, total_steps=1, pad_token_id=pad
    )
    trained = load_model(made).model
    trained.save_pretrained(target)
    save_config_and_tokenizer(trained, made, target)
    written = TextPath.load(str(target), "sequence_classifier", 512)
    assert written.encode("Add.", "x = 1").token_ids.tolist() == ids
    probes = [("Add.", "x = 1"), ("Return the sum of the numbers.", "def f(xs): return sum(xs)")]
    write_golden_scores(target, written, probes)  # alone and as a padded batch, or it raises
    score = read_golden_scores(target / GOLDEN_SCORES)[0].score
    with torch.no_grad():
        hidden = trained.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
        assert score == pytest.approx(float(trained.get_submodule("score")(hidden)), abs=1e-5)
