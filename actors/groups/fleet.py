"""All actors of one run: start them together, hand them to the loop, take them down.

Groups start in parallel, because most of the time of a start is loading libraries.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import ray

from actors.cluster.bundles import Needs, bundles
from actors.cluster.deadlines import all_of
from actors.cluster.gauges import run_tags
from actors.cluster.placement import Placement
from actors.engines.forward_check import ForwardCheck
from actors.engines.specs import EngineSpec, TrainSpec, WeightBackend
from actors.groups.handles import (
    EngineHandle,
    JudgeHandle,
    RewardModelHandle,
    RolloutHandle,
    TrainHandle,
    call,
)
from actors.groups.reward import RemoteJudgeActor, RemoteRewardModelActor, RewardGroup
from actors.groups.rollout import RemoteRolloutActor, RolloutEngines
from actors.groups.self_check import check_engines, check_ranks
from actors.groups.trainer import RemoteTrainActor, TrainGroup
from conf.schema import (
    Config,
    Device,
    PlacementConfig,
    PolicyConfig,
    RewardConfig,
)
from rl.loss import Objective, PolicyObjective
from rl.packing import Packing
from rl.types import FloatArray, Minibatch, UpdateReport

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpec:
    """The groups of a run and what they are made of; None leaves a group out."""

    rollout_model: str | None = None
    reward: bool = False
    reward_restarts: int = 0  # times that Ray starts a shard that died again, in its place
    train: TrainSpec | None = None
    objective: Objective | None = None


class TurnTakingGroup(TrainGroup):
    """Policy ranks that share their devices: the engines sleep while the policy is updated."""

    def __init__(self, group: TrainGroup, engines: Sequence[EngineHandle]) -> None:
        super().__init__(
            group.handles,
            group.objective,
            group.packing,
            group.deadline_s,
            group.start_deadline_s,
        )
        self._engines = engines
        self._asleep = False

    async def outputs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        """Log-probs of the targets, while the engines sleep."""
        await self._put_to_sleep()
        return await super().outputs(minibatch)

    async def update(
        self, minibatch: Minibatch, old_logprobs: tuple[tuple[FloatArray, ...], ...] | None
    ) -> UpdateReport:
        """One optimizer step, while the engines sleep."""
        await self._put_to_sleep()
        return await super().update(minibatch, old_logprobs)

    async def publish(self, policy_version: int) -> None:
        """Wake the engines and give the rollout engines the current weights."""
        await self.give_way()
        await super().publish(policy_version)

    async def self_check(self, model: str, plain_bytes: int) -> ForwardCheck:
        """Check how samples are read, while the engines sleep."""
        await self._put_to_sleep()
        return await super().self_check(model, plain_bytes)

    async def give_way(self) -> None:
        """Wake the engines."""
        if self._asleep:
            await call(
                self._engines, lambda it: it.wake.remote(), self.deadline_s, "waking the engines"
            )
            self._asleep = False

    async def _put_to_sleep(self) -> None:
        if not self._asleep:
            what = "putting the engines to sleep"
            await call(self._engines, lambda it: it.sleep.remote(), self.deadline_s, what)
            self._asleep = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RayFleet:
    """The groups of a run; satisfies `rl.interfaces.Fleet` when all three are there."""

    rollout: RolloutEngines
    reward: RewardGroup
    policy: TrainGroup


def policy_objective(cfg: Config) -> PolicyObjective:
    """The policy gradient that the configuration describes."""
    algorithm = cfg.algorithm
    prompts = algorithm.prompts_per_step // algorithm.minibatches_per_step
    return PolicyObjective(
        surrogate=algorithm.surrogate,
        ratio_level=algorithm.ratio_level,
        clip_eps_low=algorithm.clip_eps_low,
        clip_eps_high=algorithm.clip_eps_high,
        dual_clip=algorithm.dual_clip,
        sapo_tau_pos=algorithm.sapo_tau_pos,
        sapo_tau_neg=algorithm.sapo_tau_neg,
        aggregation=algorithm.loss_aggregation,
        constant_tokens=prompts * algorithm.group_size * cfg.model.max_completion_tokens,
        kl_coef=algorithm.kl_coef,
        kl_kind=algorithm.kl_kind,
        kl_gradient=algorithm.kl_gradient,
        entropy_coef=algorithm.entropy_coef,
        tis_cap=algorithm.tis_cap,
        tis_level=algorithm.tis_level,
        mismatch_bound=algorithm.mismatch_bound,
        mismatch_level=algorithm.mismatch_level,
    )


# Objectives of the policy, by `algorithm.kind`; docs/howto.md shows how to add one.
OBJECTIVES: dict[str, Callable[[Config], Objective]] = {"grpo": policy_objective}


def packing_of(policy: PolicyConfig, num_ranks: int) -> Packing:
    """How samples become microbatches of the ranks; flash attention takes no mask of a tree."""
    return Packing(
        num_ranks=num_ranks,
        microbatch_tokens=policy.microbatch_tokens,
        row_tokens=policy.row_tokens,
        share_prefix="off" if policy.attention == "flash_attention_2" else policy.share_prefix,
        dense_mask=policy.attention != "flex_attention",
    )


def policy_spec(cfg: Config, total_steps: int) -> TrainSpec:
    """The training engine of the policy."""
    return TrainSpec(
        model_path=cfg.model.path,
        dtype=cfg.model.dtype,
        device=cfg.placement.device,
        policy=cfg.policy,
        total_steps=total_steps,
        temperature=cfg.rollout.temperature,
        with_reference=cfg.algorithm.kl_coef > 0,
        chat_template=cfg.model.chat_template,
        seed=cfg.seed,
    )


@asynccontextmanager
async def start_fleet(cfg: Config, specs: FleetSpec, name: str) -> AsyncIterator[RayFleet]:
    """Start the groups that `specs` names; on exit every actor is gone and its place free."""
    needs = Needs(
        rollout=cfg.rollout.engines if specs.rollout_model else 0,
        reward=cfg.reward.shards if specs.reward else 0,
        policy=cfg.policy.ranks if specs.train is not None else 0,
        judges_hold_model=cfg.reward.uses_model,
    )
    placement = await Placement.reserve(cfg.placement, bundles(cfg.placement, needs), name)
    handles: list[Any] = []
    try:
        fleet = _create(cfg, specs, needs, placement)
        handles = [*fleet.rollout.handles, *fleet.reward.handles, *fleet.policy.handles]
        await _start(cfg.placement, cfg.rollout.tensor_parallel, specs.train, fleet)
        await _self_check(cfg, specs, fleet)
        yield fleet
    finally:
        for handle in handles:
            ray.kill(handle)
        placement.release()


def _env(device: Device, variables: Mapping[str, str], threads: int) -> dict[str, str]:
    """The environment of an actor; `variables` are those of `ray.env`, which come last."""
    env = {
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    if device == "cpu":
        # Read when the libraries are loaded, so it must stand in the process's environment.
        env["OMP_NUM_THREADS"] = str(threads)
        env["DS_ACCELERATOR"] = "cpu"
        # Nothing gains by compiling here: libraries would load their compilers and call gcc.
        env["TORCHDYNAMO_DISABLE"] = "1"
    return {**env, **variables}


def _create(cfg: Config, specs: FleetSpec, needs: Needs, placement: Placement) -> RayFleet:
    def options(name: str, threads: int) -> dict[str, object]:
        return placement.options(name, _env(cfg.placement.device, cfg.ray.env, threads))

    rollout = [
        _create_rollout(cfg, specs, name, options(name, cfg.rollout.cpu_threads))
        for name in _names("rollout", needs.rollout)
    ]
    reward = [
        _create_judge(cfg, specs, name, options(name, cfg.reward.cpu_threads))
        for name in _names("reward", needs.reward)
    ]
    ranks = _names("policy", needs.policy)
    policy = TrainGroup(
        [
            _create_rank(options(name, cfg.policy.cpu_threads), rank, len(ranks))
            for rank, name in enumerate(ranks)
        ],
        specs.objective or OBJECTIVES[cfg.algorithm.kind](cfg),
        packing_of(cfg.policy, len(ranks)),
        cfg.policy.deadline_s,
        cfg.placement.ready_timeout_s,
    )
    if cfg.placement.colocate:
        # Judges without a model hold no device.
        models = cast("list[RewardModelHandle]", reward if cfg.reward.uses_model else [])
        policy = TurnTakingGroup(policy, [*rollout, *models])
    return RayFleet(
        rollout=RolloutEngines(rollout, cfg.rollout.deadline_s),
        reward=RewardGroup(reward, cfg.reward.deadline_s),
        policy=policy,
    )


def _names(group: str, count: int) -> list[str]:
    return [f"{group}-{index}" for index in range(count)]


def _create_rollout(
    cfg: Config, specs: FleetSpec, name: str, options: Mapping[str, object]
) -> RolloutHandle:
    if specs.rollout_model is None:
        raise ValueError("a rollout actor needs a model")
    trains = specs.train is not None
    spec = rollout_spec(cfg, specs.rollout_model, trains=trains)
    model = cfg.model
    actor = RemoteRolloutActor.options(**options)
    tags = run_tags(cfg.experiment, cfg.name)
    handle = actor.remote(name, spec, tags, model.chat_template, model.max_prompt_tokens)
    return cast("RolloutHandle", handle)


def _create_rank(options: Mapping[str, object], rank: int, num_ranks: int) -> TrainHandle:
    return cast("TrainHandle", RemoteTrainActor.options(**options).remote(rank, num_ranks))


def _create_judge(
    cfg: Config, specs: FleetSpec, name: str, options: Mapping[str, object]
) -> JudgeHandle:
    # Several groups are judged at once, so that the engine always has work.
    more = {"max_restarts": specs.reward_restarts, "max_concurrency": 64}
    if not cfg.reward.uses_model:
        actor = RemoteJudgeActor.options(**options, **more)
        return cast("JudgeHandle", actor.remote(name, cfg.reward, cfg.sandbox))
    spec = reward_spec(cfg.reward, cfg.placement, cfg.seed)
    tags = run_tags(cfg.experiment, cfg.name)
    actor = RemoteRewardModelActor.options(**options, **more)
    return cast("JudgeHandle", actor.remote(name, spec, tags, cfg.reward, cfg.sandbox))


async def _start(
    place: PlacementConfig, tensor_parallel: int, train: TrainSpec | None, fleet: RayFleet
) -> None:
    """Wait for all actors, and connect the ranks with the engines that they publish to."""
    ready_s = place.ready_timeout_s
    starts: list[Coroutine[Any, Any, Any]] = [
        call(
            fleet.rollout.handles,
            lambda engine: engine.ready.remote(),
            ready_s,
            "the start of the rollout actors",
        ),
        call(
            fleet.reward.handles,
            lambda shard: shard.ready.remote(),
            ready_s,
            "the start of the reward actors",
        ),
    ]
    if train is not None:
        starts.append(fleet.policy.start(train))
    await all_of(starts)
    if train is not None and fleet.rollout.handles:
        await fleet.policy.connect(fleet.rollout.handles, tensor_parallel, weight_backend(place))


async def _self_check(cfg: Config, specs: FleetSpec, fleet: RayFleet) -> None:
    """Numbers before any work: a model that is read in two ways is found out here."""
    if specs.train is None:
        return
    await check_ranks(cfg.self_check, fleet.policy, specs.train.model_path)
    await fleet.policy.give_way()
    if specs.rollout_model is not None and cfg.self_check.action != "off":
        rollout, policy = fleet.rollout, fleet.policy
        await check_engines(cfg, rollout, policy, 0, "the weights that it loaded")
        await policy.publish(0)
        await check_engines(cfg, rollout, policy, 0, "the weights that were published to it")


def weight_backend(cfg: PlacementConfig) -> WeightBackend:
    """How weights travel: through host memory, within a device, or between devices."""
    if cfg.device == "cpu":
        return "host_memory"
    return "ipc" if cfg.colocate else "nccl"


def rollout_spec(cfg: Config, model: str, *, trains: bool) -> EngineSpec:
    """The engine of a rollout actor; `trains`: new weights will be published to it."""
    rollout = cfg.rollout
    return EngineSpec(
        model=model,
        runner="generate",
        device=cfg.placement.device,
        dtype=cfg.model.dtype,
        max_model_len=cfg.model.max_prompt_tokens + cfg.model.max_completion_tokens,
        max_num_seqs=rollout.max_num_seqs,
        tensor_parallel=rollout.tensor_parallel,
        gpu_memory_utilization=rollout.gpu_memory_utilization,
        kv_cache_gib=rollout.kv_cache_gib,
        cpu_threads=rollout.cpu_threads,
        sleep_mode=cfg.placement.colocate,
        seed=cfg.seed,
        weight_backend=weight_backend(cfg.placement) if trains else None,
    )


def reward_spec(reward: RewardConfig, place: PlacementConfig, seed: int) -> EngineSpec:
    """The engine of a shard of the reward model."""
    if reward.model is None:
        raise ValueError("a reward-model actor needs reward.model")
    return EngineSpec(
        model=reward.model,
        runner="pooling",
        device=place.device,
        dtype=reward.dtype,
        max_model_len=reward.max_tokens,
        max_num_seqs=reward.max_num_seqs,
        tensor_parallel=reward.tensor_parallel,
        gpu_memory_utilization=reward.gpu_memory_utilization,
        kv_cache_gib=reward.kv_cache_gib,
        cpu_threads=reward.cpu_threads,
        sleep_mode=place.colocate,
        seed=seed,
    )
