"""Given examples: rows of prompts and answers, as data sets for SFT and DPO are published.

The columns are those that other trainers read, and those of this project's preference pairs
(`reward.pairs`). A prompt and an answer are text, or messages with role and content:

- answers: `prompt` and `completion`; or `messages`, whose last turn is the answer
- pairs: `prompt`, `chosen` and `rejected`; or the last two alone, as whole conversations; or
  `question_content`, `code_pos` and `code_neg`, whose programs are fenced
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conf.errors import DataError
from rl.base.faults import listing
from rl.base.files import lack_of
from rl.problems.datasets.files import RawFile, read_rows
from rl.problems.datasets.rows import Row, RuleError, any_text, as_dict, as_list, filled_text
from rl.types import Message, Prompt

Kind = Literal["answers", "pairs"]
Turns = tuple[Message, ...]


_COLUMNS = {
    "answers": ("prompt", "completion", "messages"),
    "pairs": ("prompt", "chosen", "rejected", "question_content", "code_pos", "code_neg"),
}
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A prompt with one answer, or with a chosen and a rejected one."""

    place: str  # file:row
    prompt: Prompt
    answers: tuple[str, ...]


def read_examples(path: str, kind: Kind, key: str = "recipe_args.data") -> list[Example]:
    """The examples of a file of JSON lines, of a JSON array or of parquet.

    Raises:
        DataError: with `file:row:column: rule (value)` for each bad row, the first ones.
    """
    if (lack := lack_of(path)) is not None:
        raise DataError(f"{key}: {path} {lack}; give {key}=FILE with {_form(kind)}")
    examples: list[Example] = []
    faults: list[str] = []
    for row in read_rows(RawFile(path, Path(path)), _COLUMNS[kind]):
        example = None if row.faults else _example(row, kind)
        faults += row.faults
        if example is not None and not row.faults:
            examples.append(example)
    if faults:
        raise DataError(f"{listing(faults)}\n{key}: rows need {_form(kind)}")
    if not examples:
        raise DataError(f"{key}: {path} holds no row; give {_form(kind)}")
    return examples


def _form(kind: Kind) -> str:
    if kind == "answers":
        return "the columns prompt and completion, or messages"
    return "the columns prompt, chosen and rejected, or question_content, code_pos and code_neg"


def _example(row: Row, kind: Kind) -> Example:
    """What a row says; of no use where it has faults."""
    turns, answers = _answer(row) if kind == "answers" else _pair(row)
    if not row.faults and (not turns or turns[-1].role != "user"):
        row.add_fault(row.first_of("prompt", "messages", "chosen"), "must end with a user's turn")
    if len(answers) == 2 and len(set(answers)) == 1 and not row.faults:
        row.add_fault(row.first_of("rejected", "code_neg"), "must not be the chosen answer")
    prompt = Prompt(id=f"row-{row.number}", messages=turns)
    return Example(place=f"{row.file}:{row.number}", prompt=prompt, answers=answers)


def _answer(row: Row) -> tuple[Turns, tuple[str, ...]]:
    if row.has("messages"):
        turns, answer = _parted(row.read("messages", _conversation) or ())
        return turns, (answer,)
    return row.read("prompt", _prompt) or (), (row.read("completion", _reply) or "",)


def _pair(row: Row) -> tuple[Turns, tuple[str, ...]]:
    if row.has("question_content"):
        turns = (Message("user", row.text("question_content")),)
        return turns, tuple(
            f"```python\n{row.text(name)}\n```" for name in ("code_pos", "code_neg")
        )
    if row.has("prompt"):
        answers = tuple(row.read(name, _reply) or "" for name in ("chosen", "rejected"))
        return row.read("prompt", _prompt) or (), answers
    sides = [_parted(row.read(name, _conversation) or ()) for name in ("chosen", "rejected")]
    if sides[0][0] != sides[1][0] and not row.faults:
        row.add_fault("rejected", "must have the turns of chosen, but for the last")
    return sides[0][0], (sides[0][1], sides[1][1])


def _parted(turns: Turns) -> tuple[Turns, str]:
    return turns[:-1], turns[-1].content if turns else ""


def _prompt(value: object) -> Turns:
    return (Message("user", filled_text(value)),) if isinstance(value, str) else _turns(value)


def _conversation(value: object) -> Turns:
    """Turns, the last of which is the answer."""
    turns = _turns(value)
    if len(turns) < 2 or turns[-1].role != "assistant":
        raise RuleError("must be a conversation that ends with an assistant's turn", value)
    return turns


def _reply(value: object) -> str:
    """An answer: text, or the one turn that holds it."""
    if isinstance(value, str):
        return filled_text(value)
    turns = _turns(value)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise RuleError("must be text, or one assistant's turn", value)
    return turns[0].content


def _turns(value: object) -> Turns:
    turns = [as_dict(turn) for turn in as_list(value)]
    if not turns:
        raise RuleError("must hold at least one turn", value)
    for turn in turns:
        if turn.get("role") not in _ROLES:
            raise RuleError(f"each turn must have a role of {', '.join(_ROLES)}", turn)
    return tuple(Message(turn["role"], _content(turn)) for turn in turns)


def _content(turn: dict[str, object]) -> str:
    if turn["role"] == "system":
        return any_text(turn.get("content"))
    return filled_text(turn.get("content"))
