"""A served language model as the judge: what it is asked, and how its answer becomes a score.

Any server with OpenAI's paths will do. An answer is hostile text, as far as a program can talk the
model into one: nothing of it but a probability, a number or a letter is read. Scores are in [0, 1].
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from conf.errors import EngineError, UserError
from conf.schema import GenerativeConfig, ReadOutConfig
from reward.code.statements import last_statement
from reward.judges.endpoints import Endpoints, UnfitError
from reward.judges.questions import Questions
from reward.verify.lineups import read_verdict
from rl.lessons.lineups import covering
from rl.seeds import derive_seed
from rl.types import JudgeKind, Lineup, Message, Prompt

_SHOWN_MODELS = 5
_LOGPROBS = "choices[0].logprobs"
_NUMBER = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?: ?/ ?([0-9]+(?:\.[0-9]+)?))?")
_PROBE = Prompt(id="probe", messages=(Message("user", "Write f(x), which returns x."),))
_PROGRAMS = ("def f(x):\n    return x", "def f(x):\n    return 0")


class GenerativeScorer:
    """Scores in [0, 1] that a served language model gives."""

    kind = JudgeKind.GENERATIVE

    def __init__(self, cfg: GenerativeConfig, servers: Endpoints) -> None:
        self._cfg = cfg
        self._servers = servers
        self._questions = Questions(cfg)

    def score(self, prompt: Prompt, codes: Sequence[str]) -> Sequence[float | None]:
        """A score of each program; None where the answer cannot be read.

        A server that does not take a text says nothing of its program either: as a rule it is
        longer than the model's context.
        """
        lists = self._lists(prompt, codes)
        return self._read(codes, lists, self.ask(self._turns(prompt, lists)))

    def ask(
        self, turns_Q: Sequence[Sequence[Message]], temperature: float = 0.0
    ) -> list[Answer | None]:
        """The answers to several questions; None where a server does not take the text.

        Raises:
            UserError: where a server takes no text of this model.
            EngineError: where servers do not answer, or not in the form of OpenAI's.
        """

        def one(turns: Sequence[Message]) -> Answer | None:
            try:
                return self._answer(self._servers, turns, temperature)
            except UnfitError:
                return None

        return self._servers.ask_all(one, turns_Q)

    def check(self) -> None:
        """Every server lists the model, and what it says of two small programs can be read."""
        lists = self._lists(_PROBE, _PROGRAMS)
        for url in self._servers.urls:
            server = self._servers.only(url)
            try:
                _check_listed(server.get(url, "/models"), str(self._cfg.model), url)
                answers = [self._answer(server, turns) for turns in self._turns(_PROBE, lists)]
            except (EngineError, UnfitError) as error:
                raise UserError(
                    f"reward.url: {url} does not judge: {error}; start it, or give another address"
                ) from error
            if all(share is None for share in self._read(_PROGRAMS, lists, answers)):
                raise UserError(f"reward.generative.{self._why_unread(answers[0])} (asked: {url})")

    def _why_unread(self, answer: Answer) -> str:
        """The key that an answer without a verdict is about, and what to change."""
        cfg = self._cfg
        if cfg.read_out == "yes_no":
            return (
                f"top_logprobs: neither Yes nor No is among the {len(answer.logprobs)} likeliest "
                f"first tokens of {cfg.model} ({', '.join(map(repr, answer.logprobs)):.100}); take "
                "a model that answers at once, or read_out=score or choice"
            )
        if answer.text is None:
            return (
                f"max_tokens: {cfg.max_tokens} tokens do not hold an answer of {cfg.model} to a "
                "program of two lines; raise it, or take a model that says less"
            )
        form = "score = NUMBER" if cfg.read_out == "score" else "best = LETTER"
        return (
            f"read_out: no line of what {cfg.model} answers ends with `{form}` as it is asked for "
            f"({answer.text[-100:]!r}); take a model that does, another read_out or another prompt"
        )

    # ------------------------------------------------------------ what is asked

    def _lists(self, prompt: Prompt, codes: Sequence[str]) -> list[list[str]]:
        """The programs of each request: one, or several to choose from."""
        cfg = self._cfg
        if cfg.read_out != "choice":
            return [[code] for code in codes]
        rng = random.Random(derive_seed(0, "lists of a judge", prompt.id, *sorted(codes)))
        return covering(codes, cfg.num_programs, cfg.rounds, rng)

    def _turns(self, prompt: Prompt, lists: Sequence[Sequence[str]]) -> list[Sequence[Message]]:
        return [self._questions.about(prompt, codes, prompt.id).messages for codes in lists]

    # ------------------------------------------------------------ what is answered

    def _answer(
        self, servers: Endpoints, turns: Sequence[Message], temperature: float = 0.0
    ) -> Answer:
        """The text of an answer, or the probabilities of its first token.

        Raises EngineError where the server has not given what was asked for.
        """
        cfg, by_token = self._cfg, self._cfg.read_out == "yes_no"
        body: dict[str, object] = {
            "model": cfg.model,
            "max_tokens": 1 if by_token else cfg.max_tokens,
            "temperature": temperature,
        }
        if cfg.api == "chat":
            body["messages"] = [asdict(turn) for turn in turns]
            body |= {"logprobs": True, "top_logprobs": cfg.top_logprobs} if by_token else {}
            path, parse = "/chat/completions", _of_chat
        else:
            body["prompt"] = "\n\n".join(turn.content for turn in turns) + "\n\nAnswer:"
            body |= {"logprobs": cfg.top_logprobs} if by_token else {}
            path, parse = "/completions", _of_completions
        answer = servers.post(path, body)
        try:
            return parse(answer, by_token=by_token)
        except _FormError as error:
            where = f"{path} of {' or '.join(servers.urls)}"
            raise EngineError(f"reward.url: {where} {error}") from error

    def _read(
        self,
        codes: Sequence[str],
        lists: Sequence[Sequence[str]],
        answers: Sequence[Answer | None],
    ) -> list[float | None]:
        if self._cfg.read_out == "choice":
            return shares_of_choices(codes, lists, [answer and answer.text for answer in answers])
        return [share_of(answer, self._cfg) for answer in answers]


class _FormError(ValueError):
    """An answer that has not the form of OpenAI's; the text goes on after the server's name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is read of an answer: its text, and log-probs of what might be its first token."""

    text: str | None  # None where the tokens ran out: its last line is not what it ends with
    logprobs: Mapping[str, float] = field(default_factory=dict[str, float])


def share_of(answer: Answer | None, cfg: ReadOutConfig) -> float | None:
    """What an answer about one program makes of it, from 0 to 1; None where it cannot be read."""
    if answer is None:
        return None
    if cfg.read_out == "yes_no":
        return share_of_yes(answer.logprobs)
    return None if answer.text is None else share_of_score(answer.text, (cfg.lowest, cfg.highest))


def share_of_yes(logprobs: Mapping[str, float]) -> float | None:
    """P(Yes) / (P(Yes) + P(No)) of the first token; None where neither is among those listed.

    Where only one is, the other has at most the probability of the last one listed, and at most
    what all of them leave. Case, quotes and white space of a token do not count.

    >>> share_of_yes({"Yes": -0.5, " yes": -3.0, "No": -1.0}) > 0.6, share_of_yes({"The": -0.1})
    (True, None)
    """
    masses = {"yes": 0.0, "no": 0.0}
    for token, logprob in logprobs.items():
        word = token.strip(" \n\t\"'`*.\u0120\u2581").lower()
        if word in masses:
            masses[word] += math.exp(min(logprob, 0.0))
    if not any(masses.values()):
        return None
    listed = [math.exp(min(logprob, 0.0)) for logprob in logprobs.values()]
    least = min(*listed, max(0.0, 1.0 - sum(listed)), 1.0)
    yes, no = (mass or least for mass in masses.values())
    return yes / (yes + no)


def share_of_score(text: str, bounds: tuple[float, float]) -> float | None:
    """Where the number that an answer states last lies within the bounds; None outside of them.

    The number ends its line; `/10` may follow where 10 is the upper bound.

    >>> share_of_score("It fails for [].\\nscore = 2.5", (0, 10)), share_of_score("Good.", (0, 10))
    (0.25, None)
    """
    lowest, highest = bounds
    found = _NUMBER.fullmatch(last_statement(text, "score", "rating"))
    if found is None or float(found[2] or highest) != highest:
        return None
    share = (float(found[1]) - lowest) / (highest - lowest)
    return share if 0 <= share <= 1 else None


def shares_of_choices(
    codes: Sequence[str], lists: Sequence[Sequence[str]], texts: Sequence[str | None]
) -> list[float | None]:
    """How often each program is chosen, of the readable answers to lists that it is in.

    >>> shares_of_choices(["x", "y"], [["x", "y"], ["y", "x"]], ["best = A", "best = A"])
    [0.5, 0.5]
    """
    chosen: dict[str, list[bool]] = {code: [] for code in codes}
    for listed, text in zip(lists, texts, strict=True):
        lineup = Lineup(codes_N=tuple(listed))
        letter = None if text is None else read_verdict(text, lineup)
        if letter is not None:
            for own, code in zip(lineup.letters_N, listed, strict=True):
                chosen[code].append(own == letter)
    return [sum(wins) / len(wins) if wins else None for wins in chosen.values()]


def _check_listed(answer: object, model: str, url: str) -> None:
    fields = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
    listed = [str(one.get("id")) for one in _objects(fields.get("data"))]
    if model not in listed:
        shown = ", ".join(listed[:_SHOWN_MODELS]) or "no model"
        raise UserError(
            f"reward.generative.model: {url} does not offer {model!r} but {shown}; give one of its "
            "names"
        )


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
