"""Answers as users hand them in (a file's lines, a request's body), and the fields added to them.

`{"prompt": str or messages, "response": str}` gains `code, valid, reason, score, reward`; every
other field stays. `language` says in what language the program is, Python where it is left out.
`launch/score.py` and `launch/serve.py` both read and write answers here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, cast

from conf.errors import DataError
from reward.judges.judge import Judged
from reward.pairs.rollout_sources import find_rollouts
from rl.base.json_text import JsonFault, parse_json
from rl.base.jsonlines import given_lines
from rl.problems.prompts import parse_language
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import RolloutRow, read_rollouts
from rl.types import Language, Message, Prompt, Task

_MAX_FAULTS = 20  # shown


@dataclass(frozen=True, slots=True)
class Answer:
    """One row, with its prompt understood."""

    row: dict[str, Any]
    messages: tuple[Message, ...]
    language: Language = "python"


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """Consecutive answers to one prompt; they are judged together."""

    prompt: Prompt
    rows: list[dict[str, Any]]


def parse_answer(row: dict[str, Any]) -> Answer:
    """Check one row. Raises DataError with a line for each field at fault.

    >>> parse_answer({"prompt": "Add.", "response": "..."}).messages[0].role
    'user'
    """
    faults: list[str] = []
    messages: tuple[Message, ...] = ()
    try:
        messages = _prompt(row.get("prompt"))
    except DataError as error:
        faults.append(str(error))
    if not isinstance(row.get("response"), str):
        faults.append(f"response: a text is needed ({row.get('response')!r:.80})")
    language: Language = "python"
    try:
        language = parse_language(row.get("language"), "language")
    except DataError as error:
        faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    return Answer(row, messages, language)


def _prompt(prompt: Any) -> tuple[Message, ...]:  # noqa: ANN401 - whatever JSON holds
    try:
        json.dumps(prompt, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError("prompt: holds a lone surrogate, which is not text") from error
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    turns = cast("list[Any]", prompt) if isinstance(prompt, list) else []
    messages = tuple(_messages(turns))
    if len(messages) != len(turns) or not any(m.role == "user" for m in messages):
        raise DataError(
            "prompt: a text, or messages with role and content and a user turn, is needed "
            f"({prompt!r:.80})"
        )
    return messages


def _messages(turns: list[Any]) -> Iterator[Message]:
    for turn in turns:
        if isinstance(turn, dict):
            fields = cast("dict[str, Any]", turn)
            role, content = fields.get("role"), fields.get("content")
            if isinstance(role, str) and isinstance(content, str):
                yield Message(role, content)


def group_answers(answers: Iterable[tuple[str, Answer]]) -> Iterator[AnswerGroup]:
    """Join consecutive answers to one prompt; each comes with the name that its group may get."""
    current: AnswerGroup | None = None
    asked: tuple[tuple[Message, ...], Language] | None = None
    for name, answer in answers:
        if current is None or asked != (answer.messages, answer.language):
            if current is not None:
                yield current
            asked = answer.messages, answer.language
            meta = json.dumps({"language": answer.language})
            current = AnswerGroup(Prompt(id=name, messages=answer.messages, meta=meta), [])
        current.rows.append(answer.row)
    if current is not None:
        yield current


def read_answers(source: Path) -> list[AnswerGroup]:
    """The answers of a file of JSON lines, or the programs of a run's rollouts.

    Raises:
        UserError: for a parquet file that is not there.
        DataError: with `file:line:column` for each malformed line, the first ones.
    """
    is_run = RunDirectory(source).rollouts(RolloutFolder.TRAINING).is_dir()
    if is_run or source.suffix == ".parquet":
        return _sampled_answers(source)
    answers: list[tuple[str, Answer]] = []
    faults: list[str] = []
    num_lines = num_bad = 0
    for number, line in given_lines(source):
        num_lines += 1
        try:
            answers.append((f"line-{number}", _parse_line(line)))
        except DataError as error:
            num_bad += 1
            if num_bad <= _MAX_FAULTS:
                faults += [f"{source}:{number}:{fault}" for fault in str(error).splitlines()]
    if faults:
        raise DataError("\n".join([*faults, f"{num_bad} of {num_lines} lines are malformed"]))
    if not answers:
        raise DataError(f"input: {source} holds no line; give at least one answer")
    return list(group_answers(answers))


def _sampled_answers(source: Path) -> list[AnswerGroup]:
    """The programs that a run sampled, with what the run found of each under `run_` names."""
    groups: list[AnswerGroup] = []
    for file in find_rollouts([str(source)]):
        if file.path.suffix != ".parquet":
            raise DataError(f"input: {file.path} holds no prompts; give the rollouts of a run")
        asked: tuple[int, str] | None = None
        for row in read_rollouts(file.path):
            if row.task != Task.CODE:
                continue
            if asked != (row.step, row.prompt_id):
                asked = row.step, row.prompt_id
                meta = json.dumps({"language": row.language})
                turns = (Message("user", row.question),)
                prompt = Prompt(id=row.prompt_id, messages=turns, meta=meta)
                groups.append(AnswerGroup(prompt, []))
            groups[-1].rows.append(_sampled_row(row))
    return groups


def _sampled_row(row: RolloutRow) -> dict[str, Any]:
    return {
        "prompt": row.question,
        "response": row.text,
        "prompt_id": row.prompt_id,
        "step": row.step,
        "sample_idx": row.sample_idx,
        "run_judge": row.judge,
        "run_score": row.score,
        "run_reward": row.reward,
        "run_verdict": row.verdict,
    }


def _parse_line(line: bytes) -> Answer:
    try:
        row = parse_json(line, finite=True)  # the fields of a row are echoed
    except JsonFault as fault:
        raise DataError(f"{fault.column}: {fault}") from fault
    if not isinstance(row, dict):
        raise DataError(f"1: a line is an object, not {type(row).__name__}")
    return parse_answer(cast("dict[str, Any]", row))


@dataclass(frozen=True, slots=True)
class GivenScore:
    """What `launch/score.py` says of a completion of a run."""

    score: float | None  # None: there is no valid code
    reward: float


GivenScores = Mapping[tuple[int, str, int], GivenScore]  # by step, prompt and index of the sample


def read_scores(source: Path) -> GivenScores:
    """The scores of a run's completions, as `launch/score.py input=RUN` writes them.

    Raises:
        DataError: with `file:line:column` for a line that is none of them.
    """
    found: dict[tuple[int, str, int], GivenScore] = {}
    for number, line in given_lines(source):
        try:
            row = parse_json(line, finite=True)
            fields = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
            _check_scored(fields)
            score, reward = fields["score"], float(fields["reward"])
            given = GivenScore(None if score is None else float(score), reward)
        except (JsonFault, TypeError, OverflowError) as error:
            raise DataError(
                f"{source}:{number}:-: is no scored completion of a run ({error}); give what "
                "launch/score.py input=RUN has written"
            ) from error
        found[fields["step"], fields["prompt_id"], fields["sample_idx"]] = given
    return found


_SCORED: Mapping[str, tuple[type | UnionType, str]] = {
    "step": (int, "a whole number"),
    "prompt_id": (str, "text"),
    "sample_idx": (int, "a whole number"),
    "score": (int | float | None, "a number or null"),
    "reward": (int | float, "a number"),
}


def _check_scored(fields: Mapping[str, Any]) -> None:
    """Raise TypeError for the first field of a scored completion that is missing or of no use."""
    for name, (kind, what) in _SCORED.items():
        if name not in fields:
            raise TypeError(f"{name} is missing")
        if not isinstance(fields[name], kind) or isinstance(fields[name], bool):
            raise TypeError(f"{name} must be {what}, not {fields[name]!r:.40}")


def judged_rows(group: AnswerGroup, judged: Judged) -> Iterator[dict[str, Any]]:
    """The rows of a group, each with what was found out about it."""
    for row, extraction, score, reward in zip(
        group.rows, judged.extractions_G, judged.scores_G, judged.rewards_G, strict=True
    ):
        yield row | {
            "code": extraction.code,
            "valid": extraction.valid,
            "reason": extraction.reason.value,
            "score": score.value,
            "reward": float(reward),
        }
