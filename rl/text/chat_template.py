"""Chat templates: read from a key, a file or a model, and proved to show what they are given."""

# transformers is typed in parts; what leaves it is narrowed before use.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from conf.errors import UserError
from rl.base.files import lack_of
from rl.text.hub_files import first_line
from rl.text.tokenizer import check_vocabulary, load_tokenizer
from rl.types import IntArray, Message, Prompt

_CLOCK = "strftime_now"  # what templates call to write the date of the day


def read_template(value: str | None, key: str = "chat_template") -> str | None:
    """A template as it is, or the text of the file that holds it; a template has braces.

    Raises:
        UserError: when there is no such file, or no template in it.
    """
    if value is None or "{" in value:
        return value
    path = Path(value)
    if lack_of(path) is not None:
        raise UserError(
            f"{key}: {value!r} is neither a Jinja template nor a file with one; give {key}=FILE, "
            "or a template, which has braces"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(
            f"{key}: {path} is not UTF-8 text ({error}); give a Jinja template"
        ) from error
    if "{" not in text:
        raise UserError(
            f"{key}: {path} holds no Jinja template: nothing in it shows a message; give one with "
            "{{ message['content'] }}"
        )
    return text


def load_policy_tokenizer(model: str, chat_template: str | None, key: str = "model.path") -> Any:  # noqa: ANN401 - tokenizers have no common typed base
    """The tokenizer of a policy, with `chat_template` in place of its own when one is given."""
    tokenizer: Any = load_tokenizer(model, key)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def check_policy_text(
    model: str, chat_template: str | None, key: str = "model.path", template: str = "chat_template"
) -> Any:  # noqa: ANN401
    """The tokenizer of a policy that can be asked; `key` and `template` are names of keys.

    Raises:
        UserError: for a tokenizer that loses text or does not fit the model, and for a model
            without a chat template that shows the user's text.
    """
    tokenizer = load_policy_tokenizer(model, chat_template, key)
    check_vocabulary(tokenizer, model, key)
    if not tokenizer.chat_template:
        raise UserError(
            f"{key}: {model} has no chat template; give {template}=FILE with a Jinja template"
        )
    whose = f"{key}: the chat template of {model}" if chat_template is None else template
    slot = uuid.uuid4().hex
    text = render(tokenizer, [Message("user", slot)], whose, ask=True)
    if slot not in text:
        raise UserError(
            f"{whose}: a prompt that is rendered does not hold the user's text ({text[:60]!r}); "
            f"give {template}=FILE with a Jinja template that shows {{{{ message['content'] }}}}"
        )
    return tokenizer


def check_roles(tokenizer: Any, prompts: Iterable[Prompt], where: str, model: str) -> None:  # noqa: ANN401
    """Refuse problems whose turns a template does not take, or leaves out; `where` names the data.

    What a template does with a role does not depend on the text, so each order of roles is tried
    once.

    Raises:
        UserError: naming the first problem of each such order.
    """
    firsts: dict[tuple[str, ...], Prompt] = {}
    for prompt in prompts:
        firsts.setdefault(tuple(m.role for m in prompt.messages), prompt)
    faults: list[str] = []
    for roles, prompt in firsts.items():
        turns = [Message(role, uuid.uuid4().hex) for role in roles]
        row = f"{where}: problem {prompt.id} has the turns {', '.join(roles)}, and the chat "
        try:
            text = render(tokenizer, turns, "it", ask=True)
        except UserError as error:
            faults.append(f"{row}template of {model} does not take them: {error}; {_FIX}")
            continue
        hidden = [turn.role for turn in turns if turn.content not in text]
        if hidden:
            faults.append(f"{row}template of {model} leaves out the {hidden[0]} turn; {_FIX}")
    if faults:
        raise UserError("\n".join(faults))


_FIX = "move its text into the user turn, or give another chat template"


def render(
    tokenizer: Any,  # noqa: ANN401 - tokenizers have no common typed base
    turns: Sequence[Message],
    whose: str,
    *,
    ask: bool,
    **more: object,
) -> str:
    """The text of turns in a tokenizer's template; `ask` ends it where the answer begins.

    Raises:
        UserError: when the template raises; the message begins with `whose`.
    """
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=ask, **more
        )
    except Exception as error:  # a template raises whatever it likes
        raise UserError(f"{whose} cannot be rendered: {first_line(error)}") from error
    return cast(str, text)


def encode_prompt(tokenizer: Any, prompt: Prompt, prefix: str = "") -> IntArray:  # noqa: ANN401
    """Tokens of a prompt, the chat template and its generation prompt applied, and of a prefix.

    Raises:
        UserError: naming the problem, when the template does not take its turns.
    """
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    try:
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    except Exception as error:  # a template raises whatever it likes
        roles = ", ".join(message.role for message in prompt.messages)
        raise UserError(
            f"problem {prompt.id} has the turns {roles}, and the chat template does not take them: "
            f"{first_line(error)}; {_FIX}"
        ) from error
    if prefix:
        ids = [*ids, *tokenizer(prefix, add_special_tokens=False)["input_ids"]]
    return np.asarray(ids, dtype=np.int32)


def writes_date(tokenizer: Any, turns: Sequence[Message], whose: str, *, ask: bool) -> bool:  # noqa: ANN401
    """Whether the text of these turns depends on the day on which they are rendered."""
    if _CLOCK not in str(tokenizer.chat_template):
        return False

    def on(day: str) -> str:
        def clock(_: str) -> str:
            return day

        return render(tokenizer, turns, whose, ask=ask, **{_CLOCK: clock})

    return on("one day") != on("another day")


def date_note(tokenizer: Any, key: str, model: str) -> str | None:  # noqa: ANN401
    """What to tell people of a policy whose prompts change from day to day."""
    if not writes_date(tokenizer, [Message("user", "x")], key, ask=True):
        return None
    return (
        f"{key}: the chat template of {model} writes the date of the day into every prompt, so a "
        "run of another day asks something else; give a template with a fixed date to repeat it"
    )
