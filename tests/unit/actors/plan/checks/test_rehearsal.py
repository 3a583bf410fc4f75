"""What transformers refuses is said before an engine starts, with the reason and the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GraniteConfig

from actors.plan.checks.rehearsal import rehearse
from conf.errors import UserError

pytestmark = pytest.mark.unit

ASSETS = Path(__file__).resolve().parents[5] / "assets/minipy"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Each test has directories of its own under names that may come again."""
    yield
    rehearse.cache_clear()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ASSETS / "policy", tmp_path / "model"))


def configure(directory: Path, **values: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_shipped_models_pass() -> None:
    rehearse(str(ASSETS / "policy"), "model.path", "lm", num_tokens=512, saves=True)
    becomes = rehearse(str(ASSETS / "policy"), "model", "score", num_tokens=512, saves=True)
    assert becomes == "Qwen3ForSequenceClassification"
    rehearse(str(ASSETS / "rm"), "reward.model", "score", num_tokens=512)


def test_a_hub_id_is_left_to_the_actors() -> None:
    assert rehearse("Qwen/Qwen3-8B", "model.path", "lm", num_tokens=10**9, saves=True) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_act": "foo"}, ["no causal language model can be built", "foo"]),
        ({"layer_types": ["full_attention"]}, ["`layer_types` (1)"]),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, ["rope_type", "factor"]),
        ({"model_type": "qwen9"}, ["model_type 'qwen9'", "does not know"]),
        ({"rms_norm_eps": "a"}, ["is refused by transformers"]),
    ],
)
def test_the_reason_of_the_library_is_kept_in_one_line(
    model: Path, values: dict[str, Any], words: list[str]
) -> None:
    configure(model, **values)
    with pytest.raises(UserError) as caught:
        rehearse(str(model), "model.path", "lm")
    message = str(caught.value)
    assert message.startswith("model.path: ")
    assert "config.json" in message and "\n" not in message
    for word in words:
        assert word in message


def test_a_context_that_only_the_class_states_is_known(model: Path) -> None:
    gpt2 = GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=2).to_dict()
    gpt2 |= {"architectures": ["GPT2LMHeadModel"], "eos_token_id": 2, "bos_token_id": 2}
    del gpt2["n_positions"]
    (model / "config.json").write_text(json.dumps(gpt2))
    rehearse(str(model), "model", "lm", num_tokens=1024)
    with pytest.raises(UserError, match="model: 1025 tokens are more than the 1024 positions"):
        rehearse(str(model), "model", "lm", num_tokens=1025)


def test_an_architecture_without_a_classifier_can_not_become_a_reward_model(model: Path) -> None:
    small = GraniteConfig(vocab_size=512, hidden_size=64, num_hidden_layers=2, eos_token_id=2)
    config = small.to_dict() | {"architectures": ["GraniteForCausalLM"], "intermediate_size": 64}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    (model / "config.json").write_text(json.dumps(config))
    rehearse(str(model), "model", "lm")
    with pytest.raises(UserError, match=r"^model: no sequence classifier can be built"):
        rehearse(str(model), "model", "score")


def test_a_tokenizer_that_can_not_be_loaded_is_named(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"^policy: the tokenizer of .* cannot be loaded"):
        rehearse(str(model), "policy", "lm")
