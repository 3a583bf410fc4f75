"""Raw scores of given texts from the reward group: what judging a reward model starts from."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.cluster.deadlines import all_of
from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, start_fleet
from actors.groups.reward import RewardGroup
from conf.errors import NonFiniteError
from conf.schema import Config, RewardConfig
from reward.model.files import is_local
from rl.base.console import Console
from rl.base.versions import installed_versions
from rl.text.hub_files import model_digest
from rl.types import Score

_IN_FLIGHT = 64  # calls
# A call costs about as much as scoring three short programs on a CPU, so short problems share one;
# a call of long ones must not take a slow model so long that its shard counts as dead.
_CALL_CHARS = 16_384
_CALLS_PER_SHARD = 4  # about; with fewer a shard would wait long for another's last call


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
        async with start_fleet(cfg, FleetSpec(reward=True), name) as fleet:
            with console.steps(len(problems), what="problems"):
                return await score_all(fleet.reward, problems, console.advance)

    with session(cfg.ray, name) as run:
        return run(score())


async def score_all(
    reward: RewardGroup, problems: Sequence[Candidates], advance: Callable[[], None]
) -> list[tuple[Score, ...]]:
    """Score every text with a group that runs; `advance` is called for each problem that is done.

    Raises NonFiniteError when a score is no number.
    """

    async def score(call: Sequence[Candidates]) -> list[tuple[Score, ...]]:
        async with slots:
            scores = await reward.score_problems([(one.question, one.texts) for one in call])
        for problem, found in zip(call, scores, strict=True):
            _check_finite(problem, found)
            advance()
        return scores

    slots = asyncio.Semaphore(_IN_FLIGHT)
    calls = _calls(problems, len(reward.seats))
    return [found for scores in await all_of(map(score, calls)) for found in scores]


def _calls(problems: Sequence[Candidates], num_shards: int) -> Iterator[list[Candidates]]:
    """Cut the problems, in their order, into the calls that are made."""
    sizes = [len(one.question) + sum(map(len, one.texts)) for one in problems]
    enough = min(_CALL_CHARS, sum(sizes) / (_CALLS_PER_SHARD * num_shards))
    call: list[Candidates] = []
    held = 0
    for problem, size in zip(problems, sizes, strict=True):
        call.append(problem)
        held += size
        if held >= enough:
            yield call
            call, held = [], 0
    if call:
        yield call


def _check_finite(problem: Candidates, scores: Sequence[Score]) -> None:
    for text, found in zip(problem.texts, scores, strict=True):
        if found.value is None or not math.isfinite(found.value):
            raise NonFiniteError(
                f"the reward model gave {found.value} for {text[:60]!r} on the problem "
                f"{problem.question[:60]!r}; check dtype and the model's weights"
            )


def scoring_settings(reward: RewardConfig) -> dict[str, object]:
    """All that a score depends on beside the texts, for the record."""
    model = str(reward.model)
    return {
        "model": model,
        "model_digest": model_digest(Path(model)) if is_local(model) else None,
        "adapter": reward.adapter,
        "system": reward.system,
        "dtype": reward.dtype,
        "quantisation": None,
        "max_tokens": reward.max_tokens,
        "truncation": "end of the text, then of the problem; closing tokens are kept",
        "versions": installed_versions(),
    }
