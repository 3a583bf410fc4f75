"""A tokenizer says what its tokenizer.json says, or the model is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from conf.errors import UserError
from reward.model.text_path import TextPath
from rl.text.chat_template import check_policy_text, date_note, encode_prompt, read_template
from rl.text.tokenizer import (
    PROBES,
    character_ends,
    check_vocabulary,
    decode,
    load_tokenizer,
    tokenizer_note,
)
from rl.types import Message, Prompt
from tests.unit.tokenizer_kinds import KINDS, LLAMA32, write_tokenizer

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[4] / "assets/minipy/policy"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICY, tmp_path / "policy"))


def configure(policy: Path, **changes: object) -> None:
    file = policy / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_class_that_loses_white_space_gives_way_to_tokenizer_json(policy: Path) -> None:
    configure(policy, tokenizer_class="LlamaTokenizerFast")
    named: Any = AutoTokenizer.from_pretrained(policy)
    assert named.decode(named(PROBES[0])["input_ids"]) != PROBES[0]  # or this test shows nothing
    right: Any = AutoTokenizer.from_pretrained(POLICY)
    loaded: Any = load_tokenizer(str(policy), "model")
    for text in PROBES:
        assert loaded(text)["input_ids"] == right(text)["input_ids"]
    assert (loaded.eos_token, loaded.pad_token) == (right.eos_token, right.pad_token)
    assert "tokenizer.json is read as it is" in (tokenizer_note(str(policy), "model") or "")
    assert tokenizer_note(str(POLICY), "model") is None


def test_what_is_saved_again_is_read_right_by_everybody(policy: Path, tmp_path: Path) -> None:
    configure(policy, tokenizer_class="LlamaTokenizerFast")
    load_tokenizer(str(policy), "model").save_pretrained(tmp_path / "saved")
    again: Any = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.decode(again(PROBES[1])["input_ids"]) == PROBES[1]


@pytest.mark.parametrize("lost", ["white space", "letters"])
def test_a_tokenizer_that_loses_text_is_refused_with_what_it_loses(policy: Path, lost: str) -> None:
    file = policy / "tokenizer.json"
    state = json.loads(file.read_text())
    if lost == "white space":
        state["normalizer"] = {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}
    else:
        state["normalizer"] = {"type": "Lowercase"}
    file.write_text(json.dumps(state))
    with pytest.raises(UserError, match=r"^model: the tokenizer of .* cannot say what it reads"):
        load_tokenizer(str(policy), "model")


@pytest.mark.parametrize("text", ["{", "{}", ""])
def test_a_damaged_tokenizer_is_refused_in_one_line(policy: Path, text: str) -> None:
    (policy / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=r"^model: the tokenizer of .* cannot be loaded") as caught:
        load_tokenizer(str(policy), "model")
    assert "\n" not in str(caught.value)


def test_tokens_without_an_embedding_are_refused_by_name(policy: Path) -> None:
    tokenizer: Any = load_tokenizer(str(policy), "model")
    check_vocabulary(tokenizer, str(policy), "model")
    fits = 512 - len(tokenizer)  # so many more would still have rows
    tokenizer.add_tokens([f"<|{i}|>" for i in range(fits)])
    check_vocabulary(tokenizer, str(policy), "model")
    tokenizer.add_tokens(["<|tool|>"])
    tokenizer.save_pretrained(policy)
    with pytest.raises(UserError, match=r"'<\|tool\|>' with id 512, and vocab_size is 512"):
        check_policy_text(str(policy), None, "model")
    with pytest.raises(UserError, match=r"reward\.model: .*'<\|tool\|>' with id 512"):
        TextPath.load(str(policy), "sequence_classifier", 256)


def test_spaces_before_punctuation_stay_where_a_policy_wrote_them(policy: Path) -> None:
    configure(policy, clean_up_tokenization_spaces=True)
    tokenizer: Any = load_tokenizer(str(policy), "model")
    code = "x = [1 , 2]  # they 're not"
    assert decode(tokenizer, tokenizer(code)["input_ids"]) == code


def test_tokens_end_where_their_text_does_and_special_ones_add_nothing(policy: Path) -> None:
    tokenizer: Any = load_tokenizer(str(policy), "model")
    text = "def f(x):\n    return 'caf\u00e9 \U0001f642'"
    ids = np.array([*tokenizer(text)["input_ids"], tokenizer.eos_token_id], np.int32)
    ends = character_ends(tokenizer, ids)
    assert ends[-1] == ends[-2] == len(text)
    for count, end in enumerate(ends, start=1):
        if "\ufffd" not in (start := decode(tokenizer, ids[:count])):  # a character is complete
            assert start == text[:end]
    assert character_ends(tokenizer, ids[:0]).tolist() == []


def test_a_policy_without_a_template_is_refused_and_a_given_one_is_taken(policy: Path) -> None:
    (policy / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"^model\.path: .* has no chat template; give chat_tem"):
        check_policy_text(str(policy), None)
    tokenizer = check_policy_text(str(policy), "{% for m in messages %}{{ m.content }}{% endfor %}")
    prompt = Prompt(id="p", messages=(Message("user", "Add."),))
    assert decode(tokenizer, encode_prompt(tokenizer, prompt).tolist()) == "Add."


@pytest.mark.parametrize("template", ["template.jinja", "{{ bos_token }}", "{% if %}", "{{ x() }}"])
def test_a_template_that_shows_nothing_of_the_user_is_refused(policy: Path, template: str) -> None:
    with pytest.raises(UserError, match=r"^model\.chat_template"):
        check_policy_text(str(policy), template, template="model.chat_template")


def test_a_problem_whose_turns_are_refused_is_named(policy: Path) -> None:
    template = "{{ raise_exception('no system turn') }}"
    tokenizer: Any = load_tokenizer(str(policy), "model")
    tokenizer.chat_template = template
    prompt = Prompt(id="p-7", messages=(Message("system", "x"), Message("user", "y")))
    with pytest.raises(UserError, match=r"problem p-7 has the turns system, user.*no system turn"):
        encode_prompt(tokenizer, prompt)


def test_a_template_comes_from_a_file_and_a_missing_file_is_no_template(tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    for text, words in (("no braces", "no Jinja template"), (None, "neither a Jinja template nor")):
        if text is not None:
            file.write_text(text)
        else:
            file.unlink()
        with pytest.raises(UserError, match=rf"^model\.chat_template: .*{words}"):
            read_template(str(file), "model.chat_template")


def test_a_policy_whose_prompts_change_with_the_day_is_told(tmp_path: Path) -> None:
    write_tokenizer(KINDS["llama3.2"], tmp_path)
    tokenizer = check_policy_text(str(tmp_path), None)
    assert "date of the day" in (date_note(tokenizer, "model", "m") or "")
    fixed = LLAMA32.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'")
    assert date_note(check_policy_text(str(tmp_path), fixed), "model", "m") is None
