"""Lineups: several programs of one problem, the question which is right, and its answer.

The task of Aletheia's verifier (arXiv 2601.12186): exactly one program of a lineup passes all
tests, and the answer is its letter. It is hostile text: nothing but a letter is read from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from reward.code.fences import fenced
from reward.code.statements import last_statement
from rl.problems.prompts import language_of
from rl.types import Lineup, Message, Prompt

AnswerForm = Literal["steps", "letter"]

_REQUEST = "{question}\n\nOnly one of these programs is right:\n\n{programs}\n\n{how}"
_HOW: dict[AnswerForm, str] = {
    "steps": (
        "Work out in a few short lines what is right. The last line of the answer is "
        "`best = LETTER`."
    ),
    "letter": "The answer is one line, `best = LETTER`.",
}


def request_for_verdict(
    problem: Prompt, lineup: Lineup, prompt_id: str, *, form: AnswerForm
) -> Prompt:
    """The problem, asked which of the given programs solves it.

    >>> problem = Prompt(id="a", messages=(Message("user", "Add."),))
    >>> lineup = Lineup(codes_N=("f = sum", "f = max"), pass_rates_N=(1.0, 0.0))
    >>> request_for_verdict(problem, lineup, "a#list-0", form="letter").question.splitlines()[-1]
    'The answer is one line, `best = LETTER`.'
    """
    programs = "\n\n".join(
        f"{letter}:\n{fenced(code.strip(), language_of(problem))}"
        for letter, code in zip(lineup.letters_N, lineup.codes_N, strict=True)
    )
    asked = _REQUEST.format(question=problem.question.strip(), programs=programs, how=_HOW[form])
    last = max(i for i, message in enumerate(problem.messages) if message.role == "user")
    turns = (*problem.messages[:last], Message("user", asked))
    return replace(problem, id=prompt_id, messages=turns, tests=None, meta="{}")


def read_verdict(text: str, lineup: Lineup) -> str | None:
    r"""The letter that an answer states last, or None where that is none of the lineup.

    `best = B`, the form that is asked for, or a box, or an answer that is nothing but a letter;
    markup around the letter does not count, another word on its line makes it no letter.

    >>> lineup = Lineup(codes_N=("a", "b"), pass_rates_N=(1.0, 0.0))
    >>> [read_verdict(t, lineup) for t in ("A adds.\nbest = B", r"\boxed{A}", "(b)", "best = C")]
    ['B', 'A', 'B', None]
    """
    letter = last_statement(text, "best").upper()
    return letter if letter in tuple(lineup.letters_N) else None
