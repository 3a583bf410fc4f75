"""Arguments that several commands share, and the checks that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conf.schema import Config, key
from launch.cli import compose_config
from reward.model_files import AdapterName, context_of

MAX_CONTEXT = 4096


@dataclass(frozen=True, kw_only=True)
class RewardGroupArgs:
    """The group of actors that serves a reward model."""

    adapter: AdapterName = key("family of the reward model", "sequence_classifier")
    dtype: Literal["float32", "bfloat16"] = key("of weights and activations", "float32")
    max_tokens: int | None = key(
        "context: problem and code; null is what the model has, at most 4096", None, ge=8
    )
    shards: int = key("reward actors", 1, ge=1)
    placement: Literal["laptop", "one_gpu", "one_node", "multi_node"] = key("where", "laptop")


def reward_config(model: str, args: RewardGroupArgs, *overrides: str) -> Config:
    """The configuration of a group that serves `model`; the other groups are not started."""
    return compose_config(
        [
            f"placement={args.placement}",
            "reward=codescaler",
            f"++reward.adapter={args.adapter}",
            f"++reward.dtype={args.dtype}",
            f"++reward.max_tokens={args.max_tokens or default_context(model)}",
            f"++reward.shards={args.shards}",
            f"++reward.model='{model}'",
            *overrides,
        ]
    )


@dataclass(frozen=True, kw_only=True)
class AnswerArgs(RewardGroupArgs):
    """A group that judges whole answers: extraction, score, reward."""

    model: str = key("directory or hub id of the reward model")
    shaping: Literal["softplus", "raw", "sigmoid", "rank"] = key("score -> reward", "softplus")
    rule: Literal["single_block", "last_block"] = key(
        "which fenced block is the program", "single_block"
    )


def answer_config(args: AnswerArgs) -> Config:
    """The configuration of a group that judges whole answers."""
    rules = (f"++reward.shaping={args.shaping}", f"++reward.rule={args.rule}")
    return reward_config(args.model, args, *rules)


def default_context(model: str) -> int:
    """Tokens of a local model's context, at most 4,096 (the paper's code scores with that)."""
    directory = Path(model)
    if not (directory / "config.json").is_file():
        return MAX_CONTEXT
    return min(MAX_CONTEXT, context_of(directory) or MAX_CONTEXT)
