"""What the driver costs as a step grows: real groups and real Ray, actors that answer at once.

Everything that the driver does is done: prompts are dealt, completions are fetched and unpickled,
bundles are sent to the shards, advantages, packing and the minibatch on its way to the ranks. What
the engines would compute is left out, so that the driver is all that is measured.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import ray

from actors.cluster.session import session
from actors.groups.reward import RewardGroup
from actors.groups.rollout import RolloutEngines
from actors.groups.supervision import Seat, Supervisor
from actors.groups.trainer import TrainGroup
from actors.stages.recipes import make_recipe
from conf.schema import Config
from reward.judges.judge import Answers, Judged
from rl.base.console import Console
from rl.packing import Packing
from rl.step import collect, learn
from rl.types import (
    Ask,
    Completion,
    Extraction,
    Finish,
    JudgeKind,
    Message,
    Prompt,
    PromptGroup,
    Reason,
    SamplingConfig,
    Score,
    UpdateReport,
)

NUM_TOKENS = 16_384  # of a completion
_PROMPT_TOKENS = 512
_GROUP_SIZE = 16
_ENGINES, _SHARDS, _RANKS = 4, 2, 4
CHARS_PER_TOKEN = 4
_WAIT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverCost:
    """What one step took of the driver."""

    cpu_s: float
    wall_s: float
    memory_bytes: int  # of the process at the end of the step


class SimulatedEngine:
    """Samples completions of full length without a model."""

    async def ready(self) -> str:
        """Answer at once."""
        return "engine"

    async def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        """Yield random groups."""
        rng = np.random.default_rng(step)
        for ask in asks:
            completions = tuple(
                Completion(
                    prompt_id=ask.prompt.id,
                    sample_idx=index,
                    text="x" * (NUM_TOKENS * CHARS_PER_TOKEN),
                    token_ids=rng.integers(0, 150_000, NUM_TOKENS, np.int32),
                    rollout_logprobs=rng.random(NUM_TOKENS, np.float32),
                    finish=Finish.STOP,
                    policy_version=step - 1,
                )
                for index in range(ask.sampling.group_size)
            )
            yield PromptGroup(
                ask=ask,
                prompt_token_ids=np.arange(_PROMPT_TOKENS, dtype=np.int32),
                completions_G=completions,
                engine="engine",
                finished_s=time.time(),
            )


class SimulatedShard:
    """Scores answers by their place in the group."""

    def ready(self) -> str:
        """Answer at once."""
        return "shard"

    def judge(
        self, bundle: Sequence[Answers], earlier_codes: Sequence[str] = ()
    ) -> tuple[list[Judged], float]:
        """Judge each answer in no time."""
        del earlier_codes
        return [_judged(len(answers.texts_G)) for answers in bundle], time.time()


def _judged(num: int) -> Judged:
    return Judged(
        extractions_G=(Extraction(reason=Reason.OK, code="pass"),) * num,
        scores_G=tuple(Score(value=float(index)) for index in range(num)),
        rewards_G=np.arange(num, dtype=np.float32),
        judge=JudgeKind.RM,
        num_executed=0,
    )


class SimulatedRank:
    """Takes its microbatches and does nothing with them."""

    def update(self, *_: Any) -> UpdateReport:  # noqa: ANN401 - what a rank is given
        """Report an optimizer step."""
        return UpdateReport(metrics={"policy/loss": 0.0}, lr=1e-6)


class _Policy(TrainGroup):
    """The ranks, without weights that could be published."""

    async def publish(self, policy_version: int) -> None:
        """Nothing to publish."""


@dataclass(frozen=True, slots=True)
class _Fleet:
    rollout: RolloutEngines
    reward: RewardGroup
    policy: _Policy


def _seats(kind: Any, group: str, num: int) -> list[Seat[Any]]:  # noqa: ANN401 - any of the actors above
    create = ray.remote(kind).options(num_cpus=0).remote
    return [Seat(f"{group}-{number}", create) for number in range(num)]


def _fleet(cfg: Config) -> _Fleet:
    supervisor = Supervisor(cfg.supervision, _WAIT_S, lambda _: "here", Console())
    rank: Any = ray.remote(SimulatedRank).options(num_cpus=0)
    names = [f"policy-{number}" for number in range(_RANKS)]
    return _Fleet(
        RolloutEngines(_seats(SimulatedEngine, "rollout", _ENGINES), _WAIT_S, supervisor),
        RewardGroup(_seats(SimulatedShard, "reward", _SHARDS), _WAIT_S, supervisor),
        _Policy(
            Seat("policy", lambda: tuple(rank.remote() for _ in names), actors=names),
            Packing(num_ranks=_RANKS, microbatch_tokens=NUM_TOKENS + _PROMPT_TOKENS),
            _WAIT_S,
            supervisor,
        ),
    )


def driver_costs(
    cfg: Config, num_repeats: int, sizes: Sequence[int]
) -> Mapping[int, Sequence[DriverCost]]:
    """Costs of steps of so many completions, by their number; the first step of each warms up."""
    with session(cfg.ray, "driver-costs") as run:
        return {size: run(_steps(cfg, num_repeats, size)) for size in sizes}


async def _steps(cfg: Config, num_repeats: int, num_completions: int) -> list[DriverCost]:
    fleet = _fleet(cfg)
    costs = [await _step(cfg, fleet, step, num_completions) for step in range(1, num_repeats + 2)]
    return costs[1:]


async def _step(cfg: Config, fleet: _Fleet, step: int, num_completions: int) -> DriverCost:
    sampling = SamplingConfig(group_size=_GROUP_SIZE, max_tokens=NUM_TOKENS)
    recipe = make_recipe(cfg, sampling)
    problems = [
        Prompt(id=f"p{number}", messages=(Message("user", f"problem {number}"),))
        for number in range(num_completions // _GROUP_SIZE)
    ]
    this = psutil.Process()
    before, started_s = this.cpu_times(), time.perf_counter()
    batch = await collect(step, fleet, recipe, problems, recipe.start())
    await learn(step, batch, fleet, on_policy=True)
    after = this.cpu_times()
    return DriverCost(
        cpu_s=after.user + after.system - before.user - before.system,
        wall_s=time.perf_counter() - started_s,
        memory_bytes=this.memory_info().rss,
    )
