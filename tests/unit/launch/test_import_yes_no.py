"""A language model asked for yes or no becomes a classifier of the difference of logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from actors.plan.checks.rehearsal import rehearse
from conf.errors import UserError
from launch.common.findings import PROBES, fitting_adapters, model_findings, write_golden
from launch.doctor import DoctorConfig, doctor
from launch.import_yes_no import ImportArgs, run
from reward.model.files import check_reward_model
from reward.model.golden import read_golden_scores
from reward.model.text_path import TextPath
from rl.problems import minipy
from rl.problems.tiny_model import make_tokenizer
from tests.settings import REWARD_MODEL

pytestmark = pytest.mark.unit

POSITIONS = 512
TOLERANCE = 1e-5
WORDS = ["Yes No"] * 2000  # enough of them for a token each
FAMILIES: dict[str, tuple[type, Callable[..., PreTrainedConfig]]] = {
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
    "llama": (LlamaForCausalLM, LlamaConfig),
    "phi": (PhiForCausalLM, PhiConfig),  # its LM head has a bias
}


def make(
    directory: Path, *, family: str = "qwen3", tied: bool = False, dtype: str = "float32"
) -> Path:
    """A random language model whose logits spread over some units."""
    corpus = ["\n".join(pair) for pair in minipy.warm_start_answers(200, 0.3, 0)]
    tokenizer = make_tokenizer([*corpus, *WORDS], vocab_size=600)
    kind, config = FAMILIES[family]
    torch.manual_seed(4)
    model = kind(
        config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=tied,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            **({"head_dim": 32} if family == "qwen3" else {}),
        )
    )
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.to(getattr(torch, dtype)).save_pretrained(directory, max_shard_size="60KB")
    tokenizer.save_pretrained(directory)
    return directory


def converted(tmp_path: Path, **args: str) -> Path:
    target = tmp_path / "rm"
    run(ImportArgs(input=str(tmp_path / "lm"), output=str(target), **args))
    return target


def logit_differences(source: Path, texts: list[list[int]]) -> list[float]:
    """What plain transformers says with the language model, in float32."""
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    vocabulary = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits[0, -1] for ids in texts]
    return [float(one[vocabulary["Yes"]] - one[vocabulary["No"]]) for one in logits]


def texts_of(directory: Path, adapter: Any = "sequence_classifier") -> list[list[int]]:
    path = TextPath.load(str(directory), adapter, POSITIONS)
    return [path.encode(problem, code).token_ids.tolist() for problem, code in PROBES]


@pytest.mark.parametrize(("family", "tied"), [("qwen3", True), ("qwen3", False), ("llama", False)])
def test_the_score_is_the_difference_of_the_logits(tmp_path: Path, *, family: str, tied: bool):
    source = make(tmp_path / "lm", family=family, tied=tied)
    target = converted(tmp_path)
    check_reward_model(str(target), "sequence_classifier", POSITIONS)
    rehearse(str(target), "model", "score")
    texts = texts_of(target)
    wanted = logit_differences(source, texts)
    model: Any = AutoModelForSequenceClassification.from_pretrained(target, dtype=torch.float32)
    with torch.no_grad():
        ours = [float(model.eval()(torch.tensor([ids])).logits[0, 0]) for ids in texts]
    assert ours == pytest.approx(wanted, abs=TOLERANCE)
    assert max(wanted) - min(wanted) > 0.1


def test_a_head_with_a_bias_becomes_a_token_classifier_that_has_it(tmp_path: Path):
    source = make(tmp_path / "lm", family="phi")
    target = converted(tmp_path)
    assert fitting_adapters(str(target)) == ["acecoder"]
    texts = texts_of(target, "acecoder")
    model: Any = AutoModelForTokenClassification.from_pretrained(target, dtype=torch.float32)
    with torch.no_grad():
        ours = [float(model.eval()(torch.tensor([ids])).logits[0, -1, 0]) for ids in texts]
    assert ours == pytest.approx(logit_differences(source, texts), abs=TOLERANCE)
    assert abs(model.score.bias.item()) > 0.01


def test_the_text_is_what_the_model_would_be_asked_and_ends_before_its_answer(tmp_path: Path):
    source = make(tmp_path / "lm")
    target = converted(tmp_path)
    own: Any = TextPath.load(str(REWARD_MODEL), "codescaler", 64).tokenizer  # of the same template
    asked = (
        f"{PROBES[0][0]}\n\nThis program is given:\n\n```\n{PROBES[0][1]}\n```\n\nIs it right for "
        "every input? Answer with Yes or No alone."
    )
    text = own.apply_chat_template(
        [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
    )
    ours: Any = TextPath.load(str(target), "sequence_classifier", POSITIONS).tokenizer
    ids = ours(text, add_special_tokens=False)["input_ids"]
    assert texts_of(target)[0] == ids
    answered = ours(f"{text}Yes", add_special_tokens=False)["input_ids"]
    assert answered == [*ids, ours.convert_tokens_to_ids("Yes")]
    assert (source / "chat_template.jinja").read_text() != (
        target / "chat_template.jinja"
    ).read_text()


def test_the_doctor_reads_it_and_its_golden_scores_are_the_differences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = make(tmp_path / "lm", tied=True)
    target = converted(tmp_path)
    golden = tmp_path / "golden.json"
    assert doctor(DoctorConfig(reward_model=str(target), golden_scores=str(golden))) == 0
    assert "reward.adapter=sequence_classifier" in capsys.readouterr().out
    assert [f.found for f in model_findings(str(target)) if f.thing == "texts"] == [
        "tokenizer, template and labels agree"
    ]
    wanted = logit_differences(source, texts_of(target))
    assert [one.score for one in read_golden_scores(golden)] == pytest.approx(wanted, abs=TOLERANCE)


def test_weights_in_bfloat16_stay_and_their_difference_is_exact(tmp_path: Path):
    source = make(tmp_path / "lm", dtype="bfloat16")
    target = converted(tmp_path)
    before = {n: t for file in source.glob("*.safetensors") for n, t in load_file(file).items()}
    after = {n: t for file in target.glob("*.safetensors") for n, t in load_file(file).items()}
    head = after.pop("score.weight")
    lm_head = before.pop("lm_head.weight")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    vocabulary = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    wanted = lm_head[vocabulary["Yes"]].float() - lm_head[vocabulary["No"]].float()
    assert head.dtype == torch.float32 and torch.equal(head[0], wanted)
    assert not torch.equal(wanted.bfloat16().float(), wanted)  # what is kept
    assert json.loads((target / "config.json").read_text())["dtype"] == "bfloat16"
    write_golden(str(target), "sequence_classifier", tmp_path / "golden.json")
    wanted_scores = logit_differences(source, texts_of(target))
    stored = [one.score for one in read_golden_scores(tmp_path / "golden.json")]
    assert stored == pytest.approx(wanted_scores, abs=TOLERANCE)


def test_padding_is_given_to_a_model_without_and_no_text_ends_with_it(tmp_path: Path):
    source = make(tmp_path / "lm")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    target = converted(tmp_path)
    pad = json.loads((target / "config.json").read_text())["pad_token_id"]
    assert pad is not None and all(ids[-1] != pad for ids in texts_of(target))


def test_a_question_of_a_file_is_asked(tmp_path: Path):
    source = make(tmp_path / "lm")
    question = tmp_path / "question.txt"
    question.write_text("Task: {question}\nCode: {code}\nWorks?\n")
    target = converted(tmp_path, template=str(question))
    path = TextPath.load(str(target), "sequence_classifier", POSITIONS)
    ids = path.encode("P", "print(1)").token_ids.tolist()
    assert path.tokenizer.decode(ids) == (
        "<|im_start|>user\nTask: P\nCode: print(1)\nWorks?<|im_end|>\n<|im_start|>assistant\n"
    )
    texts = texts_of(target)
    write_golden(str(target), "sequence_classifier", tmp_path / "golden.json")
    stored = [one.score for one in read_golden_scores(tmp_path / "golden.json")]
    assert stored == pytest.approx(logit_differences(source, texts), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"yes": "Certainly"}, r"yes: 'Certainly' behind .* is read as the tokens \['C"),
        ({"no": ""}, r"no: '' behind .* is read as the tokens \[\]"),
        ({"no": "Yes"}, r"no: 'Yes' is the token of yes='Yes'"),
    ],
)
def test_words_that_are_no_token_of_their_own_are_refused(
    tmp_path: Path, args: dict[str, str], said: str
):
    make(tmp_path / "lm")
    with pytest.raises(UserError, match=said):
        converted(tmp_path, **args)
    assert not (tmp_path / "rm").exists()


def test_a_classifier_and_quantised_weights_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="generates no text"):
        run(ImportArgs(input=str(REWARD_MODEL), output=str(tmp_path / "rm")))
    source = make(tmp_path / "lm")
    config = json.loads((source / "config.json").read_text())
    quantised = config | {"quantization_config": {"quant_method": "fp8"}}
    (source / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(UserError, match="quantised"):
        converted(tmp_path)


def test_other_templates_of_the_tokenizer_do_not_come_along(tmp_path: Path):
    source = make(tmp_path / "lm")
    own = (source / "chat_template.jinja").read_text()
    (source / "chat_template.jinja").unlink()
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": own}))
    target = converted(tmp_path)
    assert "chat_template" not in json.loads((target / "tokenizer_config.json").read_text())
    assert TextPath.load(str(target), "sequence_classifier", 64).tokenizer.chat_template == (
        (target / "chat_template.jinja").read_text()
    )
