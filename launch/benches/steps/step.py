"""A step of the quickstart beside its engines alone, on the same prompts, answers and tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from actors.cluster.session import session
from actors.groups.fleet import (
    RayFleet,
    policy_spec,
    reward_spec,
    rollout_spec,
    start_fleet,
)
from actors.stages.recipes import policy_objective
from conf.schema import Config
from launch.benches.steps.quickstart import NUM_UPDATES, Steps, fleet_spec
from launch.benches.steps.raw_engines import RawDeepSpeed, RawVllm, Request
from launch.benches.timing import Timing, ratio, spread, timed
from reward.model.text_path import TextPath
from rl.base.console import Console
from rl.loss import LossDenominators
from rl.packing import build_minibatch
from rl.seeds import derive_seed
from rl.step import Batch
from rl.types import (
    IntArray,
    JudgedGroup,
    SamplingConfig,
    StepReport,
)

_STILL = 1e-12  # learning rate: the policy samples the same tokens in both
_PARTS = {
    "time/rollout_s": "sampling",
    "time/score_s": "scores after it",
    "time/update_s": "update",
    "time/publish_s": "publication",
}
_ALONE = ("generate", "classify", "update")
Row = tuple[str, str, str]


def measure_step(cfg: Config, num_repeats: int) -> None:
    """Print what a step takes, and what its engines take alone."""
    cfg = replace(cfg, policy=replace(cfg.policy, lr=_STILL))
    with session(cfg.ray, "bench-step") as run:
        rows = run(_measure(cfg, num_repeats))
    Console().table("step of the quickstart beside its engines alone", rows)


async def _measure(cfg: Config, num_repeats: int) -> list[Row]:
    ours: list[Timing] = []
    parts: list[StepReport] = []
    alone: list[dict[str, Timing]] = []
    async with start_fleet(cfg, fleet_spec(cfg), "bench-step") as fleet:
        with ExitStack() as stack:
            raw, steps = _RawEngines(cfg, stack), Steps(cfg, fleet)
            for _ in range(num_repeats + 1):  # the first warms up
                (batch, report), timing = await timed(steps.run())
                ours.append(timing)
                parts.append(report)
                alone.append(await raw.take(batch, fleet, steps))
    return _rows(ours[1:], parts[1:], alone[1:])


class _RawEngines:
    """The engines of a step in processes of their own."""

    def __init__(self, cfg: Config, stack: ExitStack) -> None:
        self._cfg = cfg
        self._text_path = TextPath.load(
            str(cfg.reward.model), cfg.reward.adapter, cfg.reward.max_tokens
        )
        self._sampler = RawVllm(rollout_spec(cfg, cfg.model.path, trains=False))
        self._scorer = RawVllm(reward_spec(cfg.reward, cfg.placement, cfg.seed))
        self._trainer = RawDeepSpeed(policy_spec(cfg, NUM_UPDATES), cfg.policy.ranks)
        for engine in (self._sampler, self._scorer, self._trainer):
            stack.callback(engine.close)

    async def take(self, batch: Batch, fleet: RayFleet, steps: Steps) -> dict[str, Timing]:
        """What each engine takes for what it did in a step."""
        requests = list(_requests(steps.number, batch, steps.recipe.setup.sampling))
        rows = list(_scored_rows(batch, self._text_path))
        minibatch = build_minibatch(batch.lesson.updates[0].samples, fleet.policy.packing)
        by_rank = minibatch.microbatches_by_rank
        norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)

        async def generate() -> None:
            self._sampler.generate(requests)

        async def classify() -> None:
            self._scorer.classify(rows)

        async def update() -> None:
            self._trainer.update(by_rank, policy_objective(self._cfg), norm)

        works = {"generate": generate(), "classify": classify(), "update": update()}
        return {name: (await timed(work))[1] for name, work in works.items()}


def _requests(step: int, batch: Batch, how: SamplingConfig) -> Iterator[Request]:
    for judged in batch.groups_P:
        params = {
            "n": how.group_size,
            "max_tokens": how.max_tokens,
            "temperature": how.temperature,
            "seed": derive_seed(how.seed, how.purpose, step, judged.group.prompt.id),
            "stop_token_ids": _last_tokens(judged),
            "logprobs": 0,
        }
        yield judged.group.prompt_token_ids.tolist(), params


def _last_tokens(judged: JudgedGroup) -> list[int]:
    """What ended the completions of a group."""
    ends = {int(c.token_ids[-1]) for c in judged.group.completions_G if c.finish == "stop"}
    return sorted(ends)


def _scored_rows(batch: Batch, text_path: TextPath) -> Iterator[IntArray]:
    """What the reward model read: each program of a problem once."""
    for judged in batch.groups_P:
        codes = dict.fromkeys(e.code for e in judged.extractions_G if e.valid)
        for code in codes:
            yield text_path.encode(judged.group.prompt.question, code).token_ids


def _rows(
    ours: Sequence[Timing], reports: Sequence[StepReport], alone: Sequence[dict[str, Timing]]
) -> list[Row]:
    wall = [t.wall_s for t in ours]
    cpu = [t.cpu_s for t in ours]
    floor_wall = [sum(t.wall_s for t in parts.values()) for parts in alone]
    floor_cpu = [sum(t.cpu_s for t in parts.values()) for parts in alone]
    return [
        ("step", spread(wall), f"CPU {spread(cpu)}"),
        *(
            (f"- {says}", spread([r.metrics[name] for r in reports]), "")
            for name, says in _PARTS.items()
        ),
        ("engines alone", spread(floor_wall), f"CPU {spread(floor_cpu)}"),
        *(
            (
                f"- {name}",
                spread([parts[name].wall_s for parts in alone]),
                f"CPU {spread([parts[name].cpu_s for parts in alone])}",
            )
            for name in _ALONE
        ),
        ("ratio", ratio(wall, floor_wall), f"CPU {ratio(cpu, floor_cpu)}; to the sum of the parts"),
    ]
