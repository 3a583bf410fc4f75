"""A reward model behind HTTP: our own server's form, or that of OpenRLHF's servers."""

# transformers is typed in parts; what leaves it is narrowed before use.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from conf.errors import EngineError, NonFiniteError, UserError
from conf.schema import RewardConfig
from reward.code.fences import fenced
from reward.judges.endpoints import Endpoints, UnfitError
from rl.problems.prompts import language_of
from rl.text.chat_template import load_policy_tokenizer
from rl.types import JudgeKind, Message, Prompt

_PROBE = Prompt(id="probe", messages=(Message("user", "Write f(x), which returns x."),))
_PROGRAM = "def f(x):\n    return x"


class RemoteScorer:
    """Raw scores of a served reward model; all programs of a group are one request."""

    kind = JudgeKind.RM

    def __init__(self, cfg: RewardConfig, servers: Endpoints) -> None:
        self._servers = servers
        self._is_ours = cfg.remote.api == "codescaler"
        named = cfg.remote.tokenizer
        self._tokenizer: Any = (
            None
            if named is None or self._is_ours
            else load_policy_tokenizer(named, None, "reward.remote.tokenizer")
        )

    def score(self, prompt: Prompt, codes: Sequence[str]) -> Sequence[float | None]:
        """A score of each program, in their order."""
        return self._asked(self._servers, prompt, codes)

    def check(self) -> None:
        """Every server scores a small program, and scores two of them in one request."""
        for url in self._servers.urls:
            try:
                self._asked(self._servers.only(url), _PROBE, [_PROGRAM, f"{_PROGRAM} + 0"])
            except (EngineError, NonFiniteError, UnfitError) as error:
                raise UserError(
                    f"reward.url: {url} gives no score: {error}; start it, or give another address"
                ) from error

    def _asked(self, servers: Endpoints, prompt: Prompt, codes: Sequence[str]) -> list[float]:
        language = language_of(prompt)
        answers = [fenced(code, language) for code in codes]
        if self._is_ours:
            messages = [asdict(message) for message in prompt.messages]
            row = {"prompt": messages, "language": language}
            rows = [{**row, "response": answer} for answer in answers]
            return _of_rows(servers.post("/score", rows), len(codes))
        body = {
            "query": [self._query(prompt, answer) for answer in answers],
            "prompts": [prompt.question] * len(codes),
            "labels": [""] * len(codes),
        }
        return _of_rewards(servers.post("", body), len(codes))

    def _query(self, prompt: Prompt, answer: str) -> str:
        """Problem and answer as one text, as the server's model was trained to read them."""
        if self._tokenizer is None:
            return f"{prompt.question}\n\n{answer}"
        turns = [*map(asdict, prompt.messages), {"role": "assistant", "content": answer}]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False))


def _of_rows(answer: object, num: int) -> list[float]:
    """Scores of the rows of our own server."""
    rows = _checked(answer, num, "a list")
    scores: list[float] = []
    for row in rows:
        fields = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
        if fields.get("valid") is False:
            raise EngineError(
                f"reward.url: the server finds no program where there is one "
                f"({fields.get('reason')!r}); its rule of extraction is not reward.rule"
            )
        scores.append(_number(fields.get("score")))
    return scores


def _of_rewards(answer: object, num: int) -> list[float]:
    """Scores of an OpenRLHF server."""
    fields = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
    return [_number(value) for value in _checked(fields.get("rewards"), num, '"rewards", a list')]


def _checked(values: object, num: int, what: str) -> list[Any]:
    found = cast("list[Any]", values) if isinstance(values, list) else None
    if found is None or len(found) != num:
        given = "nothing" if found is None else f"{len(found)} of them"
        raise EngineError(
            f"reward.url: {num} programs were sent, and {what} with a score of each is needed; the "
            f"server answers {given}"
        )
    return found


def _number(value: object) -> float:
    # JSON of Python has NaN; a list of one is what a head of one label gives.
    if isinstance(value, list) and len(cast("list[object]", value)) == 1:
        (value,) = cast("list[object]", value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EngineError(f"reward.url: a score must be a number ({value!r:.80})")
    if not math.isfinite(value):
        raise NonFiniteError(f"reward.url: a score must be finite ({value})")
    return float(value)
