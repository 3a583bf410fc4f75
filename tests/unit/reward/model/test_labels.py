"""A reward model has one label, a chat template and a head; anything else is refused at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.plan.checks.text_checks import check_reward_texts
from actors.plan.reward_group import REWARD_KEYS, reward_config
from conf.commands.reward_model import RewardGroupArgs
from conf.errors import EngineError, UserError
from reward.model.files import check_family, check_reward_model, read_system
from reward.model.golden import compare_with_golden, find_golden_scores
from reward.model.text_path import TextPath
from rl.text.tokenizer import decode
from tests.settings import shipped_config

pytestmark = pytest.mark.unit

MODEL = Path(__file__).resolve().parents[4] / "assets/minipy/rm"
WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "rm"))


def configure(model: Path, drop: tuple[str, ...] = (), **changes: object) -> None:
    file = model / "config.json"
    config: dict[str, Any] = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if k not in drop}))


def reweigh(model: Path, **heads: Any) -> None:
    tensors = load_file(model / WEIGHTS)
    head = tensors.pop("score.weight")
    save_file(tensors | {name: make(head) for name, make in heads.items()}, model / WEIGHTS)


def refusal(model: Path) -> str:
    with pytest.raises(UserError) as caught:
        check_reward_model(str(model), "sequence_classifier", 256)
    return str(caught.value)


def test_two_labels_are_refused_with_their_names(model: Path) -> None:
    configure(model, id2label={"0": "wrong", "1": "right"}, label2id={"wrong": 0, "right": 1})
    assert "is a classifier with 2 labels (wrong, right)" in refusal(model)


def test_a_classifier_that_does_not_say_how_many_labels_it_has_is_refused(model: Path) -> None:
    configure(model, drop=("id2label", "label2id", "num_labels"))
    assert "neither id2label nor num_labels" in refusal(model)
    configure(model, num_labels=1)
    check_reward_model(str(model), "sequence_classifier", 256)


def test_a_head_with_two_rows_is_refused_whatever_the_configuration_says(model: Path) -> None:
    reweigh(model, **{"score.weight": lambda head: torch.cat([-head, head])})
    assert "score.weight" in refusal(model) and "[2, 128]" in refusal(model)


def test_a_value_head_is_refused_by_its_name(model: Path) -> None:
    reweigh(model, **{"v_head.summary.weight": lambda head: head})
    configure(model, architectures=["Qwen2ForCausalRM"])
    assert "a value head (v_head.summary.weight)" in refusal(model)


def test_a_reward_model_without_a_chat_template_is_refused(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"^model: .* has no chat template"):
        reward_config(str(model), RewardGroupArgs())
    with pytest.raises(UserError, match=r"^reward\.model: its tokenizer has no chat template"):
        TextPath.load(str(model), "sequence_classifier", 256)


def test_a_family_with_prompts_of_its_own_needs_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^reward\.adapter: .*give reward\.system=FILE"):
        check_family("themis", None)
    with pytest.raises(UserError, match=r"^adapter: .*give system=FILE"):
        reward_config(str(MODEL), RewardGroupArgs(adapter="themis"))
    file = tmp_path / "system.txt"
    with pytest.raises(UserError, match=r"^system: the file .*system\.txt does not exist"):
        read_system(str(file), "system")
    file.write_text("Judge it.\n")
    cfg = reward_config(str(MODEL), RewardGroupArgs(adapter="themis", system=str(file)))
    assert cfg.reward.system == "Judge it."
    text_path = check_reward_texts(cfg.reward, REWARD_KEYS)
    read = decode(
        text_path.tokenizer, text_path.encode("q", "c").token_ids, skip_special_tokens=False
    )
    assert read.startswith("<|im_start|>system\nJudge it.<|im_end|>")


def test_a_run_reads_template_and_system_turn_from_their_files(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages[0]['content'] }}")
    (tmp_path / "s.txt").write_text("Judge it.")
    files = [f"++model.chat_template={tmp_path}/t.jinja", f"++reward.system={tmp_path}/s.txt"]
    cfg = shipped_config(files)
    assert cfg.model.chat_template == "{{ messages[0]['content'] }}"
    assert cfg.reward.system == "Judge it."
    with pytest.raises(UserError, match=r"^model\.chat_template: 'nowhere' is neither"):
        shipped_config(["++model.chat_template=nowhere"])


def test_golden_scores_come_from_the_directory_or_a_file(model: Path, tmp_path: Path) -> None:
    assert find_golden_scores(str(model), None, "key") == model / "golden_scores.json"
    assert find_golden_scores("owner/name", None, "key") is None
    file = tmp_path / "mine.json"
    with pytest.raises(UserError, match=r"^key: the file .* does not exist"):
        find_golden_scores("owner/name", str(file), "key")
    for text in ("{", "[]", '[{"question": "q", "code": "c"}]', '[{"score": NaN}]', "3"):
        file.write_text(text)
        with pytest.raises(UserError, match=r"mine\.json"):
            find_golden_scores("owner/name", str(file), "key")
    file.write_text('[{"question": "q", "code": "c", "score": 1.5}]')
    assert find_golden_scores("owner/name", str(file), "key") == file
    compare_with_golden(file, "float32", lambda rows: [row.score + 5e-5 for row in rows])
    for wrong in (1.6, float("nan")):
        with pytest.raises(EngineError, match=r"mine\.json"):
            compare_with_golden(file, "float32", lambda _, wrong=wrong: [wrong])


def test_a_line_says_where_nothing_is_compared(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = reward_config(str(model), RewardGroupArgs())
    check_reward_texts(cfg.reward, REWARD_KEYS)
    assert "without golden scores" not in capsys.readouterr().out
    (model / "golden_scores.json").unlink()
    check_reward_texts(cfg.reward, REWARD_KEYS)
    assert "comes without golden scores" in capsys.readouterr().out
