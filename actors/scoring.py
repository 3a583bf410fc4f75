"""Score a file of answers with the reward group, in the order of the lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from actors.fleet import RayFleet, Specs, connect, start_fleet
from actors.judging import check_model
from conf.schema import Config
from reward.judge import Judged
from rl.console import Console
from rl.errors import DataError
from rl.types import Message, Prompt

_IN_FLIGHT = 256  # groups


@dataclass(frozen=True, slots=True)
class _Group:
    """Consecutive lines with one prompt."""

    prompt: Prompt
    rows: list[dict[str, Any]]


def score_file(cfg: Config, source: Path, target: Path) -> None:
    """Score `source` into `target`, which appears only when it is complete.

    Raises:
        UserError: when the model directory is none.
        DataError: with `file:line:column` when a line is malformed; nothing is started then.
    """
    check_model(cfg)
    groups = list(_read(source))
    num_rows = sum(len(group.rows) for group in groups)
    target.parent.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.stage("score", f"{num_rows} answers to {len(groups)} prompts, {cfg.reward.model}")
    connect(cfg, namespace=f"score-{target.stem}")
    try:
        judged = asyncio.run(_score(cfg, groups, console))
    finally:
        ray.shutdown()
    partial = target.with_name(target.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for group, verdict in zip(groups, judged, strict=True):
            file.writelines(json.dumps(row) + "\n" for row in _extended(group, verdict))
    partial.rename(target)
    console.say(f"written to {target}")


async def _score(cfg: Config, groups: Sequence[_Group], console: Console) -> list[Judged]:
    slots = asyncio.Semaphore(_IN_FLIGHT)

    async def judge(fleet: RayFleet, group: _Group) -> Judged:
        async with slots:
            judged, _, _ = await fleet.reward.judge_texts(
                group.prompt, [row["response"] for row in group.rows]
            )
        console.advance()
        return judged

    async with start_fleet(cfg, Specs(reward=True), "score") as fleet:
        with console.steps(len(groups)):
            return list(await asyncio.gather(*(judge(fleet, group) for group in groups)))


def _extended(group: _Group, judged: Judged) -> Iterator[dict[str, Any]]:
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


def _read(source: Path) -> Iterator[_Group]:
    if not source.is_file():
        raise DataError(f"{source}: no such file; give input=FILE with one JSON object per line")
    current: _Group | None = None
    with source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row, messages = _parse(source, number, line)
            if current is None or current.prompt.messages != messages:
                if current is not None:
                    yield current
                current = _Group(Prompt(id=f"line-{number}", messages=messages), [])
            current.rows.append(row)
    if current is not None:
        yield current


def _parse(source: Path, number: int, line: bytes) -> tuple[dict[str, Any], tuple[Message, ...]]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{source}:{number}:{error.start + 1}: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{source}:{number}:{error.colno}: not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise DataError(f"{source}:{number}:1: a line is an object, not {type(row).__name__}")
    if not isinstance(row.get("response"), str):
        raise DataError(f"{source}:{number}:response: a text is needed ({row.get('response')!r})")
    prompt = row.get("prompt")
    try:
        json.dumps(prompt, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{source}:{number}:prompt: holds a lone surrogate, no text") from error
    if isinstance(prompt, str):
        return row, (Message("user", prompt),)
    turns = prompt if isinstance(prompt, list) else []
    messages = tuple(
        Message(turn["role"], turn["content"])
        for turn in turns
        if isinstance(turn, dict)
        and isinstance(turn.get("role"), str)
        and isinstance(turn.get("content"), str)
    )
    if len(messages) != len(turns) or not any(m.role == "user" for m in messages):
        raise DataError(
            f"{source}:{number}:prompt: a text, or messages with role and content and a user turn, "
            f"is needed ({prompt!r})"
        )
    return row, messages
