"""Yes or no: a question to a language model as the text of a reward model.

The model's own chat template is rendered once, with marks where problem and answer stand. What is
around them becomes the template of a classifier: it ends where the model would begin to answer, so
that the last token is the one whose logits say yes or no.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any, cast

from conf.errors import UserError, in_one_line
from rl.text.chat_template import render
from rl.text.tokenizer import PROBES
from rl.types import Message

PLACES = ("{question}", "{code}")
_QUESTION = (
    "{question}\n\nThis program is given:\n\n```\n{code}\n```\n\n"
    "Is it right for every input? Answer with %s or %s alone."
)
_TEMPLATE = """\
{{#- The last two turns, problem and answer, in a question to a language model. -#}}
{{{{- {before} -}}}}
{{{{- messages[-2]['content'] | trim -}}}}
{{{{- {between} -}}}}
{{{{- messages[-1]['content'] | trim -}}}}
{{{{- {after} -}}}}
"""
_SWITCH = "enable_thinking"  # what templates of models that may think first ask for
_SHOWN = 20  # characters of a text in a message


def read_question(file: str | None, yes: str, no: str, key: str = "template") -> str:
    """The text that asks for one of two words; without a file, one about a program.

    Raises:
        UserError: for a file that is none, or does not show problem and answer once, in this order.
    """
    if file is None:
        return _QUESTION % (yes.strip(), no.strip())
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{key}: {file} cannot be read ({in_one_line(error)}); give a file of text"
        ) from error
    counts = [text.count(place) for place in PLACES]
    if counts != [1, 1] or text.find(PLACES[0]) > text.find(PLACES[1]):
        raise UserError(
            f"{key}: {file} holds {counts[0]} times {PLACES[0]} and {counts[1]} times {PLACES[1]}; "
            "write each once, the problem first: its tokens are then computed once for all answers"
        )
    return text


def question_template(tokenizer: Any, question: str, key: str) -> str:  # noqa: ANN401 - tokenizers have no common typed base
    """A chat template that shows problem and answer as the tokenizer's own shows the question.

    `key` is what a command calls the model, for messages.

    Raises:
        UserError: for a template that does not show the question as it is, or after which the
            model would think before it answers.
    """
    marks = uuid.uuid4().hex, uuid.uuid4().hex
    text = _ask(tokenizer, question, *marks, key)
    pieces = re.split("|".join(marks), text)
    if len(pieces) != len(marks) + 1 or text.find(marks[0]) > text.find(marks[1]):
        raise UserError(
            f"{key}: its chat template does not show the text of a user's turn exactly once; give "
            "a model with another template"
        )
    if pieces[-1].rfind("<think>") > pieces[-1].rfind("</think>"):
        raise UserError(
            f"{key}: its chat template opens a thought ({pieces[-1][-_SHOWN:]!r}), so the first "
            f"token is no answer; give a model whose template knows {_SWITCH}, or copy the model "
            "and let its chat_template.jinja close the thought"
        )
    before, between, after = (json.dumps(piece, ensure_ascii=False) for piece in pieces)
    template = _TEMPLATE.format(before=before, between=between, after=after)
    for problem, answer in zip(PROBES, reversed(PROBES), strict=True):
        asked = _ask(tokenizer, question, problem, answer, key)
        if _show(tokenizer, template, problem, answer, key) != asked:
            raise UserError(
                f"{key}: its chat template does not show {problem[:_SHOWN]!r} or "
                f"{answer[:_SHOWN]!r} in a question as they are; give a model whose template does"
            )
    return template


def answer_token(tokenizer: Any, template: str, word: str, key: str) -> int:  # noqa: ANN401
    """The id of the one token that `word` is where the answer begins.

    `key` is what a command calls the word, for messages.

    Raises:
        UserError: naming the tokens of a word that has more, or that joins what is before it.
    """
    text = _show(tokenizer, template, "x", "y", key)
    before, after = _ids(tokenizer, text), _ids(tokenizer, text + word)
    if after[:-1] == before:
        return after[-1]
    pairs = enumerate(zip(before, after, strict=False))
    at = next((index for index, (one, other) in pairs if one != other), len(before))
    tokens = tokenizer.convert_ids_to_tokens(after[at:])
    raise UserError(
        f"{key}: {word!r} behind {text[-_SHOWN:]!r} is read as the tokens {tokens}, and a score is "
        f"the logit of one token of its own; give {key}=WORD with one that is (it may begin with a "
        "space)"
    )


def _ids(tokenizer: Any, text: str) -> list[int]:  # noqa: ANN401
    return cast("list[int]", tokenizer(text, add_special_tokens=False)["input_ids"])


def _ask(tokenizer: Any, question: str, problem: str, answer: str, key: str) -> str:  # noqa: ANN401
    """The question in the tokenizer's own template, up to where the model answers at once."""
    named: dict[str, str] = dict(zip(PLACES, (problem.strip(), answer.strip()), strict=True))
    # In one pass, so that no problem can hold the place of the answer.
    content = re.sub("|".join(map(re.escape, PLACES)), lambda place: named[place[0]], question)
    options = {_SWITCH: False} if _SWITCH in str(tokenizer.chat_template) else {}
    whose = f"{key}: its chat template"
    return render(tokenizer, [Message("user", content)], whose, ask=True, **options)


def _show(tokenizer: Any, template: str, problem: str, answer: str, key: str) -> str:  # noqa: ANN401
    turns = [Message("user", problem), Message("assistant", answer)]
    return render(tokenizer, turns, key, ask=False, chat_template=template)
