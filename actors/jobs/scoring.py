"""Score answers with the reward group, in their order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from actors.cluster.session import session
from actors.groups.fleet import RayFleet, Specs, start_fleet
from conf.schema import Config
from reward.judges.answers import AnswerGroup, judged_rows
from reward.judges.judge import Judged
from rl.base.console import Console

_IN_FLIGHT = 256  # groups


def score_file(cfg: Config, groups: Sequence[AnswerGroup], target: Path) -> float:
    """Score answers into `target`, which appears only when it is complete.

    Returns the seconds from the first answer sent to the last one scored; engines start before.
    """
    num_rows = sum(len(group.rows) for group in groups)
    target.parent.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.stage("score", f"{num_rows} answers to {len(groups)} prompts, {cfg.reward.model}")
    with session(cfg, f"score-{target.stem}") as run:
        judged, seconds = run(_score(cfg, groups, console))
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
