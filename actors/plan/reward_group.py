"""The reward group of commands that score with a given model: its configuration, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from actors.plan.checks.engine_support import EngineNeeds, check_engine, device_of
from conf.commands.reward_model import AnswerArgs, RewardGroupArgs
from conf.offline import offline_config
from conf.schema import AdapterName, Config, RewardConfig
from reward.model.files import (
    RewardKeys,
    check_family,
    check_reward_model,
    context_of,
    is_local,
    read_system,
)

MAX_CONTEXT = 4096
MAX_NUM_SEQS = 64  # programs that one shard scores at once
REWARD_KEYS = RewardKeys("model", "adapter", "max_tokens", "system", "golden_scores")


def reward_config(
    model: str, args: RewardGroupArgs, keys: Mapping[str, object] | None = None
) -> Config:
    """The configuration of a group that serves `model`; the other groups are not started.

    Raises `UserError` when `model` is a directory without such a model.
    """
    max_tokens = args.max_tokens or default_context(model)
    check_reward_model(model, args.adapter, max_tokens, REWARD_KEYS)
    if is_local(model):
        check_engine(Path(model), "model", EngineNeeds("pooling", device_of(args.placement)))
    system = read_system(args.system, REWARD_KEYS.system)
    check_family(args.adapter, system, REWARD_KEYS)
    reward = {
        "reward.model": model,
        "reward.adapter": args.adapter,
        "reward.dtype": args.dtype,
        "reward.max_tokens": max_tokens,
        "reward.max_num_seqs": MAX_NUM_SEQS,
        "reward.shards": args.shards,
        "reward.system": system,
        "reward.golden_scores": args.golden_scores,
    }
    return offline_config(
        {"placement": args.placement, "reward": "codescaler"}, {**reward, **(keys or {})}
    )


def served_beside(
    cfg: Config, model: str, adapter: AdapterName, max_tokens: int, system: str | None
) -> Config:
    """The configuration of rollout actors, with a group that serves `model` on the same machine."""
    reward = replace(
        offline_config({"reward": "codescaler"}, {"reward.model": model}).reward,
        adapter=adapter,
        dtype=cfg.model.dtype,
        max_tokens=max_tokens,
        max_num_seqs=MAX_NUM_SEQS,
        system=system,
    )
    place = replace(cfg.placement.reward, gpus=1.0 if cfg.placement.rollout.gpus else 0.0)
    return replace(cfg, reward=reward, placement=replace(cfg.placement, reward=place))


def answer_config(args: AnswerArgs) -> Config:
    """The configuration of a group that judges whole answers."""
    keys = {"reward.shaping": args.shaping, "reward.rule": args.rule, "reward.reads": args.reads}
    return reward_config(args.model, args, keys)


def rehearse_reward_model(reward: RewardConfig) -> None:
    """Read and build the reward model of `reward_config` without its weights; takes seconds.

    Raises:
        UserError: naming the file that no engine could use.
    """
    from actors.plan.checks.rehearsal import rehearse  # noqa: PLC0415 - after all that is quicker

    if reward.model is not None:
        rehearse(reward.model, "model", "score", num_tokens=reward.max_tokens)


def default_context(model: str) -> int:
    """Tokens of a local model's context, at most 4,096 (the paper's code scores with that)."""
    directory = Path(model)
    if not (directory / "config.json").is_file():
        return MAX_CONTEXT
    return min(MAX_CONTEXT, context_of(directory) or MAX_CONTEXT)
