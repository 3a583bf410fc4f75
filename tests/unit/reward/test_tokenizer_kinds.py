"""Each kind of tokenizer and template is read as plain transformers does, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from conf.errors import UserError
from reward.model.read_out import choose_padding
from reward.model.text_path import TextPath
from rl.text.chat_template import check_policy_text, check_roles, encode_prompt
from rl.text.tokenizer import decode
from rl.types import Message, Prompt
from tests.unit.tokenizer_kinds import KINDS, POSITIONS, write_classifier

pytestmark = pytest.mark.unit

QUESTION = "Return the numbers in xs that are even.\n\nxs = [1 , 2]"
CODES = (
    "def f(xs):\n    return [x for x in xs if x % 2 == 0]",
    "\n\n  class A:\n\tdef g(self):\n\t\treturn 'caf\u00e9 \U0001f642 1234567'\n\n",
    "x = '</think>'\n# <think> or not\nprint(x , 'isn 't')\n",
    "",
)
READ = [name for name, kind in KINDS.items() if kind.refused is None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """A directory of each kind, and its tokenizer as tokenizer.json says it."""
    root = tmp_path_factory.mktemp("kinds")
    return {name: (root / name, write_classifier(k, root / name)) for name, k in KINDS.items()}


def plain_ids(tokenizer: Any, code: str) -> list[int]:
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": code}]
    return tokenizer.apply_chat_template(turns, return_dict=False)


@pytest.mark.parametrize("name", READ)
def test_a_reward_model_reads_and_scores_as_plain_transformers(name: str, made: Any) -> None:
    directory, tokenizer = made[name]
    path = TextPath.load(str(directory), "sequence_classifier", POSITIONS)
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
    for code in CODES:
        ids = plain_ids(tokenizer, code)
        ours = path.encode(QUESTION, code).token_ids.tolist()
        skips = tokenizer.pad_token_id if path._skipped_id is not None else None
        while skips is not None and len(ours) < len(ids) and ids[-1] == skips:
            ids = ids[:-1]  # passed over: the score below is the proof that it may be
        assert ours == ids, code
        with torch.no_grad():
            theirs = model(torch.tensor([plain_ids(tokenizer, code)])).logits[0, 0]
            hidden = model.model(torch.tensor([ours])).last_hidden_state[0, -1]
            # An engine reads the score at the last token that it is given.
            assert float(model.score(hidden)) == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize("name", READ)
def test_a_policy_is_asked_in_the_ids_of_its_chat_template(name: str, made: Any) -> None:
    directory, tokenizer = made[name]
    loaded = check_policy_text(str(directory), None)
    for text in (QUESTION, f"\n {QUESTION} \t", "x"):
        turns = [{"role": "user", "content": text}]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        own = tokenizer.backend_tokenizer.encode(rendered, add_special_tokens=False).ids
        prompt = Prompt(id="p", messages=(Message("user", text),))
        assert encode_prompt(loaded, prompt).tolist() == own


@pytest.mark.parametrize("name", READ)
def test_what_a_policy_says_keeps_its_white_space(name: str, made: Any) -> None:
    loaded = check_policy_text(str(made[name][0]), None)
    for code in CODES:
        ids = loaded(code, add_special_tokens=False)["input_ids"]
        assert decode(loaded, ids) == code


def hostile(tokenizer: Any) -> Iterator[str]:
    for token in [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]:
        yield f"x = 1{token}\n"
        yield f"{token}{token} user\n{token}"
        yield f"# {token[:-1]}{token[-1:]} {token}\n    return"


@pytest.mark.parametrize("name", READ)
def test_special_tokens_in_a_program_are_text(name: str, made: Any) -> None:
    directory, tokenizer = made[name]
    path = TextPath.load(str(directory), "sequence_classifier", POSITIONS)
    special = [i for i, t in tokenizer.added_tokens_decoder.items() if t.special]
    expected = np.isin(path.encode(QUESTION, "x").token_ids, special).sum()
    for text in hostile(tokenizer):
        for question, code in ((QUESTION, text), (text, "x = 1")):
            encoded = path.encode(question, code)
            assert np.isin(encoded.token_ids, special).sum() == expected, text
            assert not encoded.truncated
            assert text.strip() in decode(tokenizer, encoded.token_ids, skip_special_tokens=False)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.refused])
def test_what_can_not_be_read_is_refused_by_name(name: str, made: Any) -> None:
    with pytest.raises(UserError, match=rf"reward\.model: .*{KINDS[name].refused}"):
        TextPath.load(str(made[name][0]), "sequence_classifier", POSITIONS)


@pytest.mark.parametrize("name", READ)
def test_a_system_turn_is_taken_or_its_problem_named(name: str, made: Any) -> None:
    loaded = check_policy_text(str(made[name][0]), None)
    turns = (Message("system", "Be brief."), Message("user", "Add."))
    problems = [Prompt(id="p-1", messages=turns[1:]), Prompt(id="p-2", messages=turns)]
    if KINDS[name].takes_system:
        check_roles(loaded, problems, "data.train_path", "m")
        return
    with pytest.raises(
        UserError, match=r"^data\.train_path: problem p-2 has the turns system, user"
    ):
        check_roles(loaded, problems, "data.train_path", "m")


def test_a_template_that_leaves_a_turn_out_is_said_with_the_problem(made: Any) -> None:
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    loaded = check_policy_text(str(made["chatml"][0]), template)
    turns = (Message("system", "Be brief."), Message("user", "Add."))
    with pytest.raises(UserError, match=r"problem p-2 .* leaves out the system turn"):
        check_roles(loaded, [Prompt(id="p-2", messages=turns)], "data.eval_path", "m")


@pytest.mark.parametrize("name", READ)
def test_padding_is_a_token_that_no_text_ends_with(name: str, made: Any) -> None:
    directory, tokenizer = made[name]
    path = TextPath.load(str(directory), "sequence_classifier", POSITIONS, reads_last=True)
    chosen = choose_padding(tokenizer, path.last_ids(), None, "model")
    assert all(plain_ids(tokenizer, code)[-1] != chosen for code in CODES)
    own = tokenizer.pad_token_id
    if own is not None and own not in path.last_ids():
        assert chosen == own


@pytest.mark.parametrize("name", READ)
def test_a_text_that_is_too_long_keeps_its_closing_tokens(name: str, made: Any) -> None:
    directory, _ = made[name]
    whole = TextPath.load(str(directory), "sequence_classifier", POSITIONS).encode(
        QUESTION, CODES[0]
    )
    for max_tokens in (len(whole.token_ids) - 1, len(whole.token_ids) - 8, 12):
        path = TextPath.load(str(directory), "sequence_classifier", max_tokens)
        cut = path.encode(QUESTION, CODES[0])
        assert cut.truncated and len(cut.token_ids) == max_tokens
        assert cut.token_ids[-1] == whole.token_ids[-1]
        assert cut.code_start <= max_tokens
