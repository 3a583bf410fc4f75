"""Questions to a language model about the programs of one problem."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.errors import UserError, in_one_line
from conf.schema import ReadOutConfig
from reward.code.fences import fenced
from reward.verify.lineups import request_for_verdict
from rl.problems.prompts import language_of
from rl.types import Lineup, Message, Prompt

_PROMPTS = {
    "yes_no": (
        "{question}\n\nThis program is given:\n\n{code}\n\nIs it right for every input? Answer "
        "with Yes or No alone."
    ),
    "score": (
        "{question}\n\nThis program is given:\n\n{code}\n\nHow right is it? Look for inputs for "
        "which it is wrong. The last line of the answer is `score = NUMBER`, from {lowest} (wrong) "
        "to {highest} (right for every input)."
    ),
}


class Questions:
    """What is asked: which program of a list is right, or how right one program is.

    Raises UserError for a file of `prompt` that is none, or lacks problem or program.
    """

    def __init__(self, cfg: ReadOutConfig) -> None:
        self._cfg = cfg
        self._prompt = read_prompt(cfg)

    def about(self, problem: Prompt, codes: Sequence[str], prompt_id: str) -> Prompt:
        """The question about a list of programs, of one where none is chosen; without tests."""
        if self._cfg.read_out == "choice":
            lineup = Lineup(codes_N=tuple(codes))
            return request_for_verdict(problem, lineup, prompt_id, form="steps")
        (code,) = codes
        turns = (Message("user", self._of_one(problem, code)),)
        return replace(problem, id=prompt_id, messages=turns, tests=None, meta="{}")

    def _of_one(self, prompt: Prompt, code: str) -> str:
        cfg = self._cfg
        named = {
            "question": prompt.question.strip(),
            "code": fenced(code.strip(), language_of(prompt)),
        }
        named |= {"lowest": f"{cfg.lowest:g}", "highest": f"{cfg.highest:g}"}
        # In one pass, so that no program or problem can hold a place of its own.
        return re.sub(r"\{(\w+)\}", lambda place: named.get(place[1], place[0]), self._prompt)


def read_prompt(cfg: ReadOutConfig) -> str:
    """The text that asks about a program. Raises UserError for a file that is none, or lacks it."""
    if cfg.prompt is None:
        return _PROMPTS.get(cfg.read_out, "")
    try:
        text = Path(cfg.prompt).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"reward.generative.prompt: {cfg.prompt} cannot be read ({in_one_line(error)}); give a "
            "file of text"
        ) from error
    missing = [place for place in ("{question}", "{code}") if place not in text]
    if missing:
        raise UserError(
            f"reward.generative.prompt: {cfg.prompt} lacks {' and '.join(missing)}; without it the "
            "model does not see what it judges"
        )
    return text
