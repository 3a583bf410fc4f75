"""All actors of one run: start them together, hand them to the loop, take them down.

Groups start in parallel, because most of the time of a start is loading libraries.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from actors.cluster.bundles import Needs, bundles
from actors.cluster.cluster import starts_ray
from actors.cluster.deadlines import all_of
from actors.cluster.gauges import run_tags
from actors.cluster.placement import Placement
from actors.engines.specs import EngineSpec, TrainSpec, WeightBackend
from actors.groups.handles import (
    EngineHandle,
    JudgeHandle,
    RewardModelHandle,
    RolloutHandle,
    TrainHandle,
)
from actors.groups.reward import RemoteJudgeActor, RemoteRewardModelActor, RewardGroup
from actors.groups.rollout import RemoteRolloutActor, RolloutEngines
from actors.groups.self_check import check_engines, check_ranks
from actors.groups.supervision import Seat, Supervisor, kill
from actors.groups.train_actor import RemoteTrainActor
from actors.groups.trainer import Ranks, Routing, TrainGroup
from actors.groups.turns import TurnTakingGroup
from conf.errors import LostPolicyError
from conf.schema import (
    Config,
    PlacementConfig,
    PolicyConfig,
    RewardConfig,
)
from rl.base.console import Console
from rl.packing import Packing
from rl.run.directory import RunDirectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpec:
    """The groups of a run and what they are made of; None leaves a group out."""

    rollout_model: str | None = None
    reward: bool = False
    reward_restarts: int = 0  # times that Ray starts a shard that died again, in its place
    train: TrainSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RayFleet:
    """The groups of a run; satisfies `rl.interfaces.Fleet` when all three are there."""

    rollout: RolloutEngines
    reward: RewardGroup
    policy: TrainGroup
    supervisor: Supervisor

    def faults(self) -> dict[str, float]:
        """What losses have cost since the last call, under names of `rl.metrics`."""
        return self.supervisor.take_counts()

    def note(self, metric: str, number: int) -> None:
        """Count what a loss has cost, under a name of `rl.metrics`."""
        self.supervisor.note(metric, number)

    def end(self) -> None:
        """End the process of every actor."""
        for seat in (*self.rollout.seats, *self.reward.seats, self.policy.gang):
            seat.end()


def packing_of(policy: PolicyConfig, num_ranks: int) -> Packing:
    """How samples become microbatches of the ranks; flash attention takes no mask of a tree."""
    return Packing(
        num_ranks=num_ranks,
        microbatch_tokens=policy.microbatch_tokens,
        row_tokens=policy.row_tokens,
        share_prefix="off" if policy.attention == "flash_attention_2" else policy.share_prefix,
        dense_mask=policy.attention != "flex_attention",
    )


def policy_spec(cfg: Config, total_steps: int, *, reference: bool = False) -> TrainSpec:
    """The training engine of the policy; `reference`: beside the initial one, as a KL term is."""
    return TrainSpec(
        model_path=cfg.model.path,
        dtype=cfg.model.dtype,
        device=cfg.placement.device,
        policy=cfg.policy,
        total_steps=total_steps,
        temperature=cfg.rollout.temperature,
        with_reference=reference or cfg.algorithm.kl_coef > 0,
        chat_template=cfg.model.chat_template,
        seed=cfg.seed,
        profile_dir=str(RunDirectory.of(cfg).profile.resolve()),
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
    fleet: RayFleet | None = None
    try:
        fleet = _create(cfg, specs, needs, placement)
        await _start(cfg, specs, fleet)
        yield fleet
    finally:
        if fleet is not None:
            fleet.end()
        placement.release()


def actor_environment(cfg: Config, threads: int) -> dict[str, str]:
    """The environment of an actor; the variables of `ray.env` come last."""
    env = {
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    if starts_ray(cfg.ray):  # all actors are on this machine, and nobody else is to reach them
        env |= {"GLOO_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}
    if cfg.placement.device == "cpu":
        # Read when the libraries are loaded, so it must stand in the process's environment.
        env["OMP_NUM_THREADS"] = str(threads)
        env["DS_ACCELERATOR"] = "cpu"
        # Nothing gains by compiling here: libraries would load their compilers and call gcc.
        env["TORCHDYNAMO_DISABLE"] = "1"
    else:
        # float32 is to mean float32: Triton's products would round it to ten bits, which the golden
        # scores and the self-check would find.
        env["TRITON_F32_DEFAULT"] = "ieee"
        # It samples without the log-probs that we ask for, and compiles itself before it is used.
        env["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    return {**env, **cfg.ray.env}


def _create(cfg: Config, specs: FleetSpec, needs: Needs, placement: Placement) -> RayFleet:
    def options(name: str, threads: int) -> dict[str, object]:
        return placement.options(name, actor_environment(cfg, threads))

    def rollout(name: str) -> RolloutHandle:
        return _create_rollout(cfg, specs, name, options(name, cfg.rollout.cpu_threads))

    def judge(name: str) -> JudgeHandle:
        return _create_judge(cfg, specs, name, options(name, cfg.reward.cpu_threads))

    def ranks() -> Ranks:
        return tuple(
            _create_rank(options(name, cfg.policy.cpu_threads), rank, needs.policy)
            for rank, name in enumerate(_names("policy", needs.policy))
        )

    start_s = cfg.placement.ready_timeout_s
    supervisor = Supervisor(cfg.supervision, start_s, placement, Console())
    engines = [Seat(name, partial(rollout, name)) for name in _names("rollout", needs.rollout)]
    shards = [Seat(name, partial(judge, name)) for name in _names("reward", needs.reward)]
    gang = Seat("policy", ranks, actors=_names("policy", needs.policy), kill=_kill_all)
    policy = (
        gang,
        packing_of(cfg.policy, needs.policy),
        cfg.policy.deadline_s,
        supervisor,
    )
    # Judges without a model hold no device.
    models = cast("list[Seat[RewardModelHandle]]", shards if cfg.reward.uses_model else [])
    sharing = cast("list[Seat[EngineHandle]]", [*engines, *models])
    return RayFleet(
        rollout=RolloutEngines(engines, cfg.rollout.deadline_s, supervisor),
        reward=RewardGroup(shards, cfg.reward.deadline_s, supervisor),
        policy=TurnTakingGroup(*policy, engines=sharing)
        if cfg.placement.colocate
        else TrainGroup(*policy),
        supervisor=supervisor,
    )


def _kill_all(ranks: Ranks) -> None:
    for rank in ranks:
        kill(rank)


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


async def _start(cfg: Config, specs: FleetSpec, fleet: RayFleet) -> None:
    """Wait for all actors, connect the ranks with their engines, and check what they compute."""
    starts: list[Coroutine[Any, Any, None]] = [fleet.rollout.start(), fleet.reward.start()]
    if cfg.placement.colocate:  # while an engine starts it measures what is free on its device
        await all_of(starts)
        starts = []
    if specs.train is not None:
        starts.append(fleet.policy.start(specs.train))
    await all_of(starts)
    if specs.train is None:
        return
    routing = Routing(
        engines=fleet.rollout.seats,
        tensor_parallel=cfg.rollout.tensor_parallel,
        backend=weight_backend(cfg.placement),
    )
    fleet.policy.route(routing)
    fleet.rollout.give_weights = fleet.policy.give_weights
    while True:
        try:
            await _self_check(cfg, specs.train, fleet)
        except LostPolicyError:
            await fleet.policy.rebuild()
        else:
            return


async def _self_check(cfg: Config, train: TrainSpec, fleet: RayFleet) -> None:
    """Numbers before any work: a model that is read in two ways is found out here."""
    rollout, policy = fleet.rollout, fleet.policy
    await check_ranks(cfg.self_check, policy, train.model_path)
    await policy.give_way()
    if rollout.seats and cfg.self_check.action != "off":
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
        given=rollout.engine_args or {},
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
        given=reward.engine_args or {},
    )
