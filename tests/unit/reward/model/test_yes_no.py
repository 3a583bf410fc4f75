"""A question is shown as the model's own chat template shows it, up to where the answer begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from reward.model.text_path import TextPath
from reward.model.yes_no import answer_token, question_template, read_question
from rl.problems.tiny_model import make_tokenizer
from tests.unit.tokenizer_kinds import KINDS, write_tokenizer

pytestmark = pytest.mark.unit

PROBLEM = 'Return x doubled.\n\nInput: {code} \\n "xs"'
PROGRAM = "def f(x):\n    return '{{ x }}' # 'caf\u00e9' {question}\n"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
)
QWEN3 = CHATML + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
QUESTION = read_question(None, "Yes", "No")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One tokenizer of each kind that can say what it reads."""
    root = tmp_path_factory.mktemp("kinds")
    return {n: write_tokenizer(kind, root / n) for n, kind in KINDS.items() if n != "bert"}


def with_template(template: str) -> Any:
    tokenizer = make_tokenizer(["Yes No"] * 50)
    tokenizer.chat_template = template
    return tokenizer


def shown(tokenizer: Any, template: str, problem: str = PROBLEM, program: str = PROGRAM) -> str:
    turns = [{"role": "user", "content": problem}, {"role": "assistant", "content": program}]
    return tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "bert"])
def test_each_kind_of_template_shows_what_the_model_would_be_asked(
    name: str, tokenizers: dict[str, Any]
) -> None:
    tokenizer = tokenizers[name]
    template = question_template(tokenizer, QUESTION, "input")
    content = (
        f"{PROBLEM}\n\nThis program is given:\n\n```\n{PROGRAM.strip()}\n```\n\nIs it right for "
        "every input? Answer with Yes or No alone."
    )
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    assert shown(tokenizer, template) == asked
    tokenizer.chat_template = template
    path = TextPath(tokenizer, "sequence_classifier", 4096)
    ids = tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert path.encode(PROBLEM, PROGRAM).token_ids.tolist() == ids
    if name == "phi3":  # its small vocabulary has no word with the mark that a turn begins with
        with pytest.raises(UserError, match=r"^yes: 'f' behind .* tokens \['\u2581', 'f'\]"):
            answer_token(tokenizer, template, "f", "yes")
        return
    answered = tokenizer(f"{asked}f", add_special_tokens=False)["input_ids"]
    assert answered == [*ids, answer_token(tokenizer, template, "f", "yes")]


def test_a_model_that_may_think_is_asked_to_answer_at_once() -> None:
    tokenizer = with_template(QWEN3)
    text = shown(tokenizer, question_template(tokenizer, QUESTION, "input"))
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_template_that_opens_a_thought_is_refused() -> None:
    with pytest.raises(UserError, match=r"input: its chat template opens a thought"):
        question_template(with_template(CHATML + "<think>\n{% endif %}"), QUESTION, "input")


@pytest.mark.parametrize(
    "content", ["{{ m['content'][:9] }}", "{{ m['content'] }}{{ m['content'] }}"]
)
def test_a_template_that_does_not_show_the_question_once_is_refused(content: str) -> None:
    tokenizer = with_template("{% for m in messages %}" + content + "{% endfor %}")
    with pytest.raises(UserError, match=r"does not show the text of a user's turn exactly once"):
        question_template(tokenizer, QUESTION, "input")


def test_a_template_that_changes_some_texts_is_refused() -> None:
    tokenizer = with_template(
        "{% for m in messages %}{{ m['content'] | replace('total', 'sum') }}{% endfor %}"
    )
    with pytest.raises(UserError, match=r"does not show .* or 'total \+= 1234567890 ' in a"):
        question_template(tokenizer, QUESTION, "input")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{question} alone", "1 times {question} and 0 times {code}"),
        ("{code} {code} {question}", "1 times {question} and 2 times {code}"),
        ("{code} of {question}", "write each once, the problem first"),
        ("", "0 times {question}"),
    ],
)
def test_a_question_that_does_not_show_both_once_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "question.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"^template: .*{said}"):
        read_question(str(file), "Yes", "No")


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"template: .*none.txt cannot be read"):
        read_question(str(tmp_path / "none.txt"), "Yes", "No")


def test_the_question_names_the_words_that_are_read() -> None:
    assert read_question(None, " right", " wrong").endswith("Answer with right or wrong alone.")
