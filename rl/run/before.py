"""The evaluation before the first step, read back by a run that goes on.

Only of recipes that examine by programs alone. The marks of the others (`Recipe.mark`) are made of
what execution saw, which no file holds, so that their runs make the evaluation again: of the
initial policy, which the engines still serve then, under the same seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.errors import DataError
from rl.run.rollouts import RolloutRow, read_rollouts
from rl.run.summary import PolicyFigures
from rl.types import Prompt, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the initial policy answered."""

    figures: PolicyFigures
    num_executed: int  # programs


def read_before(path: Path, problems: Sequence[Prompt], num_samples: int) -> Before | None:
    """What the rollout file of an evaluation says; None where it is not one of these problems."""
    try:
        rows = read_rollouts(path) if path.is_file() else []
    except DataError:  # torn, or of an earlier tree: the evaluation is made again
        return None
    asked = [(prompt.id, prompt.question) for prompt in problems for _ in range(num_samples)]
    if not rows or [(row.prompt_id, row.question) for row in rows] != asked:
        return None
    if not all(row.verdict is not None for row in rows):
        return None
    starts = range(0, len(rows), num_samples)
    groups: list[list[RolloutRow]] = [rows[start : start + num_samples] for start in starts]
    return Before(
        figures=PolicyFigures.of(
            [[row.score for row in group] for group in groups],
            [[row.verdict is Verdict.PASSED for row in group] for group in groups],
        ),
        num_executed=sum(row.verdict is not Verdict.NO_CODE for row in rows),
    )
