"""Language models behind OpenAI's paths: what is sent to them, and what is read of their answers.

An answer is hostile text, and so is its form: what is read of it is checked field by field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from conf.errors import EngineError, UserError
from reward.judges.endpoints import Endpoints
from rl.types import Message

_SHOWN_MODELS = 5
_LOGPROBS = "choices[0].logprobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a model is asked."""

    model: str  # its name on the server
    api: Literal["chat", "completions"] = "chat"
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    top_logprobs: int = 0  # of the first token; 0: the answer is read as a text


@dataclass(frozen=True, slots=True)
class Answer:
    """What is read of an answer: its text, and log-probs of what might be its first token."""

    text: str | None  # None where the tokens ran out: its last line is not what it ends with
    logprobs: Mapping[str, float] = field(default_factory=dict[str, float])


def ask(servers: Endpoints, turns: Sequence[Message], asking: Asking) -> Answer:
    """What a model answers to a conversation; blocks until it has.

    Raises:
        EngineError: where the server has not given what was asked for.
        UnfitError, UserError: as `Endpoints.post` does.
    """
    by_token = asking.top_logprobs > 0
    body: dict[str, object] = {
        "model": asking.model,
        "max_tokens": asking.max_tokens,
        "temperature": asking.temperature,
    }
    if asking.seed is not None:
        body["seed"] = asking.seed
    if asking.api == "chat":
        body["messages"] = [asdict(turn) for turn in turns]
        body |= {"logprobs": True, "top_logprobs": asking.top_logprobs} if by_token else {}
        path, parse = "/chat/completions", _of_chat
    else:
        body["prompt"] = "\n\n".join(turn.content for turn in turns) + "\n\nAnswer:"
        body |= {"logprobs": asking.top_logprobs} if by_token else {}
        path, parse = "/completions", _of_completions
    answer = servers.post(path, body)
    try:
        return parse(answer, by_token=by_token)
    except _FormError as error:
        where = f"{path} of {' or '.join(servers.urls)}"
        raise EngineError(f"{servers.keys.url}: {where} {error}") from error


def check_listed(servers: Endpoints, url: str, model: str, key: str) -> None:
    """Refuse a model that a server does not list; `key` is what names the model.

    Raises:
        EngineError, UnfitError: where the server does not say what it offers.
        UserError: where it offers others.
    """
    answer = servers.get(url, "/models")
    fields = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
    listed = [str(one.get("id")) for one in _objects(fields.get("data"))]
    if model not in listed:
        shown = ", ".join(listed[:_SHOWN_MODELS]) or "no model"
        raise UserError(f"{key}: {url} does not offer {model!r} but {shown}; give one of its names")


class _FormError(ValueError):
    """An answer that has not the form of OpenAI's; the text goes on after the server's name."""


def _of_chat(answer: object, *, by_token: bool) -> Answer:
    choice = _choice(answer)
    message = _object(choice.get("message"), "choices[0].message")
    logprobs: dict[str, float] = {}
    if by_token:
        content = _objects(_object(choice.get("logprobs"), _LOGPROBS).get("content"))
        first = content[0] if content else {}
        for one in _objects(first.get("top_logprobs")):
            place = f"{_LOGPROBS}.content[0].top_logprobs: logprob"
            logprobs[str(one.get("token"))] = _number(one.get("logprob"), place)
        _require(logprobs)
    return Answer(_whole(message.get("content"), choice), logprobs)


def _of_completions(answer: object, *, by_token: bool) -> Answer:
    choice = _choice(answer)
    logprobs: dict[str, float] = {}
    if by_token:
        listed = _object(choice.get("logprobs"), _LOGPROBS).get("top_logprobs")
        for token, value in (_objects(listed) or [{}])[0].items():
            logprobs[token] = _number(value, f"{_LOGPROBS}.top_logprobs[0]: {token!r:.40}")
        _require(logprobs)
    return Answer(_whole(choice.get("text"), choice), logprobs)


def _whole(text: object, choice: Mapping[str, object]) -> str | None:
    """The text of an answer that the model has ended; one that is cut off concludes nothing."""
    return None if choice.get("finish_reason") == "length" else str(text or "")


def _require(logprobs: Mapping[str, float]) -> None:
    if not logprobs:
        raise _FormError(
            "gives no log-probs, which reward.generative.read_out=yes_no reads; start it with "
            "them, or set read_out=score or choice"
        )


def _choice(answer: object) -> dict[str, Any]:
    """The first choice of an answer."""
    fields = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
    choices = _objects(fields.get("choices"))
    if not choices:
        raise _FormError(f"answers without a choice ({answer!r:.200})")
    return choices[0]


def _object(value: object, field: str) -> dict[str, Any]:
    """An object of an answer; an empty one for null."""
    if value is not None and not isinstance(value, dict):
        raise _FormError(f"answers with {field} that is no object ({value!r:.80})")
    return cast("dict[str, Any]", value or {})


def _number(value: object, field: str) -> float:
    """A number of an answer; that of no probability may be infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise _FormError(f"answers with {field} that is no number ({value!r:.80})")
    return float(value)


def _objects(value: object) -> list[dict[str, Any]]:
    """The objects of a list; none of anything else."""
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
