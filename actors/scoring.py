"""Score a file of answers with the reward group, in the order of the lines."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from actors.cluster import cluster
from actors.fleet import RayFleet, Specs, start_fleet
from actors.judging import check_model
from conf.schema import Config
from reward.answers import Answer, AnswerGroup, group_answers, judged_rows, parse_answer
from reward.judge import Judged
from rl.console import Console
from rl.errors import DataError

_IN_FLIGHT = 256  # groups


def score_file(cfg: Config, source: Path, target: Path) -> float:
    """Score `source` into `target`, which appears only when it is complete.

    Returns the seconds from the first answer sent to the last one scored; engines start before.

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
    with cluster(cfg, f"score-{target.stem}"):
        judged, seconds = asyncio.run(_score(cfg, groups, console))
    partial = target.with_name(target.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for group, verdict in zip(groups, judged, strict=True):
            file.writelines(json.dumps(row) + "\n" for row in judged_rows(group, verdict))
    partial.rename(target)
    console.say(f"{num_rows} answers in {seconds:.1f} s, written to {target}")
    return seconds


async def _score(
    cfg: Config, groups: Sequence[AnswerGroup], console: Console
) -> tuple[list[Judged], float]:
    slots = asyncio.Semaphore(_IN_FLIGHT)

    async def judge(fleet: RayFleet, group: AnswerGroup) -> Judged:
        async with slots:
            judged, _, _ = await fleet.reward.judge_texts(
                group.prompt, [row["response"] for row in group.rows]
            )
        console.advance()
        return judged

    async with start_fleet(cfg, Specs(reward=True), "score") as fleet:
        started = time.monotonic()
        with console.steps(len(groups)):
            judged = await asyncio.gather(*(judge(fleet, group) for group in groups))
        return list(judged), time.monotonic() - started


def _read(source: Path) -> Iterator[AnswerGroup]:
    if not source.is_file():
        raise DataError(f"{source}: no such file; give input=FILE with one JSON object per line")
    return group_answers(_answers(source))


def _answers(source: Path) -> Iterator[tuple[str, Answer]]:
    with source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line-{number}", _parse(source, number, line)


def _parse(source: Path, number: int, line: bytes) -> Answer:
    try:
        row = json.loads(line.decode("utf-8"))
        if not isinstance(row, dict):
            raise DataError(f"1: a line is an object, not {type(row).__name__}")
        return parse_answer(row)
    except UnicodeDecodeError as error:
        raise DataError(f"{source}:{number}:{error.start + 1}: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{source}:{number}:{error.colno}: not JSON ({error.msg})") from error
    except DataError as error:
        raise DataError(f"{source}:{number}:{error}") from error
