"""Raw scores of given texts from the reward group: what judging a reward model starts from."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.cluster import cluster
from actors.fleet import RayFleet, Specs, start_fleet
from conf.schema import Config
from reward.model_files import is_local, model_digest
from rl.console import Console
from rl.errors import NonFiniteError
from rl.types import Score
from rl.versions import installed_versions

_IN_FLIGHT = 64  # problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """One problem and the texts that are scored for it."""

    question: str
    texts: tuple[str, ...]


def score_candidates(
    cfg: Config, problems: Sequence[Candidates], name: str, console: Console
) -> list[tuple[Score, ...]]:
    """Score every text as it is: no extraction, no gate.

    Ray is started for it, and is gone afterwards. Raises NonFiniteError when a score is no number.
    """

    async def score() -> list[tuple[Score, ...]]:
        async with start_fleet(cfg, Specs(reward=True), name) as fleet:
            with console.steps(len(problems), what="problems"):
                return list(await asyncio.gather(*(one(fleet, problem) for problem in problems)))

    async def one(fleet: RayFleet, problem: Candidates) -> tuple[Score, ...]:
        async with slots:
            scores = await fleet.reward.score_problem(problem.question, problem.texts)
        console.advance()
        for text, found in zip(problem.texts, scores, strict=True):
            if found.value is None or not math.isfinite(found.value):
                raise NonFiniteError(
                    f"the reward model gave {found.value} for {text[:60]!r} on the problem "
                    f"{problem.question[:60]!r}; check dtype and the model's weights"
                )
        return scores

    slots = asyncio.Semaphore(_IN_FLIGHT)
    with cluster(cfg, name):
        return asyncio.run(score())


def scoring_settings(cfg: Config) -> dict[str, object]:
    """All that a score depends on beside the texts, for the record."""
    model = str(cfg.reward.model)
    return {
        "model": model,
        "model_digest": model_digest(Path(model)) if is_local(model) else None,
        "adapter": cfg.reward.adapter,
        "dtype": cfg.reward.dtype,
        "quantisation": None,
        "max_tokens": cfg.reward.max_tokens,
        "truncation": "end of the text, then of the problem; closing tokens are kept",
        "versions": installed_versions(),
    }
