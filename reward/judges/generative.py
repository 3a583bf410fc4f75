"""A served language model as the judge: what it is asked, and how its answer becomes a score.

Any server with OpenAI's paths will do. An answer is hostile text, as far as a program can talk the
model into one: nothing of it but a probability, a number or a letter is read. Scores are in [0, 1].
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence

from conf.errors import EngineError, UserError
from conf.schema import GenerativeConfig, ReadOutConfig
from reward.code.statements import last_statement
from reward.judges.chat import Answer, Asking, ask, check_listed
from reward.judges.endpoints import Endpoints, UnfitError
from reward.judges.questions import Questions
from reward.verify.lineups import read_verdict
from rl.lessons.lineups import covering
from rl.seeds import derive_seed
from rl.types import JudgeKind, Lineup, Message, Prompt

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
                check_listed(server, url, str(self._cfg.model), "reward.generative.model")
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
        asking = Asking(
            model=str(cfg.model),
            api=cfg.api,
            max_tokens=1 if by_token else cfg.max_tokens,
            temperature=temperature,
            top_logprobs=cfg.top_logprobs if by_token else 0,
        )
        return ask(servers, turns, asking)

    def _read(
        self,
        codes: Sequence[str],
        lists: Sequence[Sequence[str]],
        answers: Sequence[Answer | None],
    ) -> list[float | None]:
        if self._cfg.read_out == "choice":
            return shares_of_choices(codes, lists, [answer and answer.text for answer in answers])
        return [share_of(answer, self._cfg) for answer in answers]


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
