"""Score answers with the reward group, in their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, RayFleet, start_fleet
from conf.schema import Config
from reward.judges.answers import AnswerGroup, judged_rows
from reward.judges.judge import (
    Answers,
    Judged,
)
from rl.base.console import Console
from rl.base.files import replacing
from rl.base.jsonlines import as_line

_IN_FLIGHT = 256  # groups


def score_file(cfg: Config, groups: Sequence[AnswerGroup], target: Path) -> float:
    """Score answers into `target`, which appears only when it is complete.

    Returns the seconds from the first answer sent to the last one scored; engines start before.
    """
    num_rows = sum(len(group.rows) for group in groups)
    console = Console()
    console.stage("score", f"{num_rows} answers to {len(groups)} prompts, {cfg.reward.model}")
    with session(cfg.ray, f"score-{target.stem}") as run:
        judged, seconds = run(_score(cfg, groups, console))
    with replacing(target) as staged, staged.open("w", encoding="ascii") as file:
        for group, verdict in zip(groups, judged, strict=True):
            file.writelines(map(as_line, judged_rows(group, verdict)))
    console.say(f"{num_rows} answers in {seconds:.1f} s, written to {target}")
    return seconds


async def _score(
    cfg: Config, groups: Sequence[AnswerGroup], console: Console
) -> tuple[list[Judged], float]:
    slots = asyncio.Semaphore(_IN_FLIGHT)

    async def judge(fleet: RayFleet, group: AnswerGroup) -> Judged:
        async with slots:
            answers = Answers(
                problem=group.prompt, texts_G=tuple(row["response"] for row in group.rows)
            )
            (judged,), _, _ = await fleet.reward.judge_answers([answers])
        console.advance()
        return judged

    async with start_fleet(cfg, FleetSpec(reward=True), "score") as fleet:
        started = time.monotonic()
        with console.steps(len(groups)):
            judged = await asyncio.gather(*(judge(fleet, group) for group in groups))
        return list(judged), time.monotonic() - started
