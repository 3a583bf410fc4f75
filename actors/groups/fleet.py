"""All actors of one run: start them together, hand them to the loop, take them down.

Groups start in parallel, because most of the time of a start is loading libraries.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import ray

from actors.cluster.deadlines import all_of, wait_for_all
from actors.cluster.gauges import run_tags
from actors.cluster.placement import Needs, Placement, bundles
from actors.engines.forward_check import ForwardCheck
from actors.groups.reward import RemoteJudgeActor, RemoteRewardModelActor, RewardActors
from actors.groups.rollout import RemoteRolloutActor, RolloutActors
from actors.groups.self_check import check_engines, check_ranks
from actors.groups.trainer import Gang, RemotePolicyActor
from actors.groups.weights import Backend
from conf.schema import Config, PlacementConfig
from rl.loss import Objective, PolicyObjective
from rl.types import FloatArray, Minibatch, UpdateReport

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Specs:
    """What the engines of a run are made of; None leaves the group out.

    The specs are plain values, so that the driver loads neither vLLM nor DeepSpeed.
    """

    rollout_model: str | None = None
    reward: bool = False
    reward_restarts: int = 0  # times that Ray starts a shard that died again, in its place
    train: Mapping[str, Any] | None = None  # fields of TrainSpec
    objective: Objective | None = None


class TurnTakingGang(Gang):
    """Policy ranks that share their devices: the engines sleep while the policy is updated."""

    def __init__(self, gang: Gang, engines: Sequence[Any]) -> None:
        super().__init__(gang.handles, gang.objective, gang.deadline_s, gang.start_deadline_s)
        self._engines = engines  # actors with `sleep` and `wake`
        self._asleep = False

    async def logprobs(self, minibatch: Minibatch) -> tuple[tuple[FloatArray, ...], ...]:
        """Log-probs of the targets, while the engines sleep."""
        await self._put_to_sleep()
        return await super().logprobs(minibatch)

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
            refs = [engine.wake.remote() for engine in self._engines]
            await wait_for_all(refs, self.deadline_s, "waking the engines")
            self._asleep = False

    async def _put_to_sleep(self) -> None:
        if not self._asleep:
            refs = [engine.sleep.remote() for engine in self._engines]
            await wait_for_all(refs, self.deadline_s, "putting the engines to sleep")
            self._asleep = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RayFleet:
    """The groups of a run; satisfies `rl.interfaces.Fleet` when all three are there."""

    rollout: RolloutActors
    reward: RewardActors
    policy: Gang


def policy_objective(cfg: Config) -> PolicyObjective:
    """The GRPO objective that the configuration describes."""
    algorithm = cfg.algorithm
    return PolicyObjective(
        clip_eps_low=algorithm.clip_eps_low,
        clip_eps_high=algorithm.clip_eps_high,
        dual_clip=algorithm.dual_clip,
        aggregation=algorithm.loss_aggregation,
        kl_coef=algorithm.kl_coef,
        kl_kind=algorithm.kl_kind,
        tis_cap=algorithm.tis_cap,
    )


# Objectives of the policy, by `algorithm.kind`; docs/howto.md shows how to add one.
OBJECTIVES: dict[str, Callable[[Config], Objective]] = {"grpo": policy_objective}


def train_fields(cfg: Config, total_steps: int) -> dict[str, Any]:
    """Fields of `TrainSpec` for the policy."""
    policy = cfg.policy
    return {
        "model_path": cfg.model.path,
        "head": "lm",
        "dtype": cfg.model.dtype,
        "device": cfg.placement.device,
        "lr": policy.lr,
        "warmup_steps": policy.warmup_steps,
        "lr_schedule": policy.lr_schedule,
        "total_steps": total_steps,
        "weight_decay": policy.weight_decay,
        "adam_beta1": policy.adam_beta1,
        "adam_beta2": policy.adam_beta2,
        "grad_clip": policy.grad_clip,
        "attention": policy.attention,
        "gradient_checkpointing": policy.gradient_checkpointing,
        "offload_optimizer": policy.offload_optimizer,
        "offload_params": policy.offload_params,
        "cpu_threads": policy.cpu_threads,
        "temperature": cfg.rollout.temperature,
        "with_reference": cfg.algorithm.kl_coef > 0,
        "chat_template": cfg.model.chat_template,
        "seed": cfg.seed,
        "deadline_s": policy.deadline_s,
    }


def _needs(cfg: Config, specs: Specs) -> Needs:
    return Needs(
        rollout=cfg.rollout.engines if specs.rollout_model else 0,
        reward=cfg.reward.shards if specs.reward else 0,
        policy=cfg.policy.ranks if specs.train is not None else 0,
    )


@asynccontextmanager
async def start_fleet(cfg: Config, specs: Specs, name: str) -> AsyncIterator[RayFleet]:
    """Start the groups that `specs` names; on exit every actor is gone and its place free."""
    wanted = bundles(cfg, _needs(cfg, specs))
    placement = await Placement.reserve(cfg.placement, wanted, name)
    handles: list[Any] = []
    try:
        fleet = _create(cfg, specs, placement)
        handles = [*fleet.rollout.handles, *fleet.reward.handles, *fleet.policy.handles]
        await _start(cfg, specs, fleet)
        yield fleet
    finally:
        for handle in handles:
            ray.kill(handle)
        placement.release()


def _env(cfg: Config, threads: int) -> dict[str, str]:
    env = {
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    if cfg.placement.device == "cpu":
        # Read when the libraries are loaded, so it must stand in the process's environment.
        env["OMP_NUM_THREADS"] = str(threads)
        env["DS_ACCELERATOR"] = "cpu"
    return env | cfg.ray.env


def _create(cfg: Config, specs: Specs, placement: Placement) -> RayFleet:
    needs = _needs(cfg, specs)
    rollout = [
        RemoteRolloutActor.options(
            **placement.options(name, _env(cfg, cfg.rollout.cpu_threads))
        ).remote(
            name, _rollout_spec(cfg, specs), cfg.model.chat_template, cfg.model.max_prompt_tokens
        )
        for name in _names("rollout", needs.rollout)
    ]
    reward = [
        _create_judge(cfg, placement, name, specs.reward_restarts)
        for name in _names("reward", needs.reward)
    ]
    policy = tuple(
        RemotePolicyActor.options(
            **placement.options(name, _env(cfg, cfg.policy.cpu_threads))
        ).remote(rank, needs.policy)
        for rank, name in enumerate(_names("policy", needs.policy))
    )
    rollout_group = RolloutActors(rollout, cfg.rollout.deadline_s)
    reward_group = RewardActors(reward, cfg.reward.deadline_s)
    gang = Gang(
        policy,
        specs.objective or OBJECTIVES[cfg.algorithm.kind](cfg),
        cfg.policy.deadline_s,
        cfg.placement.ready_timeout_s,
    )
    if cfg.placement.colocate:
        judges = reward if cfg.reward.uses_model else []  # others hold no device
        gang = TurnTakingGang(gang, [*rollout, *judges])
    return RayFleet(rollout=rollout_group, reward=reward_group, policy=gang)


def _names(group: str, count: int) -> list[str]:
    return [f"{group}-{index}" for index in range(count)]


def _create_judge(cfg: Config, placement: Placement, name: str, restarts: int) -> Any:  # noqa: ANN401 - actor handle
    options = placement.options(name, _env(cfg, cfg.reward.cpu_threads))
    options["max_restarts"] = restarts
    # Several groups are judged at once, so that the engine always has work.
    options["max_concurrency"] = 64
    if not cfg.reward.uses_model:
        return RemoteJudgeActor.options(**options).remote(name, cfg.reward, cfg.sandbox)
    return RemoteRewardModelActor.options(**options).remote(
        name, _reward_spec(cfg), cfg.reward, cfg.sandbox
    )


async def _start(cfg: Config, specs: Specs, fleet: RayFleet) -> None:
    ready_s = cfg.placement.ready_timeout_s
    starts: list[Coroutine[Any, Any, Any]] = [
        wait_for_all(
            [h.ready.remote() for h in group.handles], ready_s, f"the start of the {what} actors"
        )
        for what, group in (("rollout", fleet.rollout), ("reward", fleet.reward))
    ]
    if specs.train is not None:
        starts.append(fleet.policy.start(dict(specs.train)))
    await all_of(starts)
    if specs.train is not None and specs.rollout_model is not None:
        await fleet.policy.connect(
            fleet.rollout.handles, cfg.rollout.tensor_parallel, weight_backend(cfg.placement)
        )
    await _self_check(cfg, specs, fleet)


async def _self_check(cfg: Config, specs: Specs, fleet: RayFleet) -> None:
    """Numbers before any work: a model that is read in two ways is found out here."""
    if specs.train is None:
        return
    scores = specs.train["head"] != "lm"
    await check_ranks(cfg, fleet.policy, str(specs.train["model_path"]), shares=scores)
    await fleet.policy.give_way()
    if specs.rollout_model is not None and cfg.self_check.action != "off":
        rollout, policy = fleet.rollout, fleet.policy
        await check_engines(cfg, rollout, policy, 0, "the weights that it loaded")
        await policy.publish(0)
        await check_engines(cfg, rollout, policy, 0, "the weights that were published to it")


def weight_backend(cfg: PlacementConfig) -> Backend:
    """How weights travel: through host memory, within a device, or between devices."""
    if cfg.device == "cpu":
        return "host_memory"
    return "ipc" if cfg.colocate else "nccl"


def _rollout_spec(cfg: Config, specs: Specs) -> dict[str, Any]:
    return {
        "model": specs.rollout_model,
        "runner": "generate",
        "device": cfg.placement.device,
        "dtype": cfg.model.dtype,
        "max_model_len": cfg.model.max_prompt_tokens + cfg.model.max_completion_tokens,
        "max_num_seqs": cfg.rollout.max_num_seqs,
        "tensor_parallel": cfg.rollout.tensor_parallel,
        "gpu_memory_utilization": cfg.rollout.gpu_memory_utilization,
        "kv_cache_gib": cfg.rollout.kv_cache_gib,
        "cpu_threads": cfg.rollout.cpu_threads,
        "weight_backend": "none" if specs.train is None else weight_backend(cfg.placement),
        "sleep_mode": cfg.placement.colocate,
        "seed": cfg.seed,
        "tags": run_tags(cfg.experiment, cfg.name),
    }


def _reward_spec(cfg: Config) -> dict[str, Any]:
    return {
        "model": cfg.reward.model,
        "runner": "pooling",
        "device": cfg.placement.device,
        "dtype": cfg.reward.dtype,
        "max_model_len": cfg.reward.max_tokens,
        "max_num_seqs": cfg.reward.max_num_seqs,
        "tensor_parallel": cfg.reward.tensor_parallel,
        "gpu_memory_utilization": cfg.reward.gpu_memory_utilization,
        "kv_cache_gib": cfg.reward.kv_cache_gib,
        "cpu_threads": cfg.reward.cpu_threads,
        "sleep_mode": cfg.placement.colocate,
        "seed": cfg.seed,
        "tags": run_tags(cfg.experiment, cfg.name),
    }
