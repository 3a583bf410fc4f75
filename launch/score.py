"""Score answers: `python launch/score.py model=DIR input=IN.jsonl output=OUT.jsonl`.

Each line `{"prompt": str or messages, "response": str}` gains `code, valid, reason, score, reward`.
The lines go through the reward group of training, so a score here is a score there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.schema import Config, key
from launch.cli import compose_config, main_simple
from reward.model_files import context_of

MAX_CONTEXT = 4096


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """The reward group of a command that only judges."""

    model: str = key("directory or hub id of the reward model")
    adapter: Literal["sequence_classifier", "codescaler", "acecoder", "themis"] = key(
        "family of the reward model", "sequence_classifier"
    )
    dtype: Literal["float32", "bfloat16"] = key("of weights and activations", "float32")
    max_tokens: int | None = key(
        "context: problem and code; null is what the model has, at most 4096", None, ge=8
    )
    shaping: Literal["softplus", "raw", "sigmoid", "rank"] = key("score -> reward", "softplus")
    rule: Literal["single_block", "last_block"] = key(
        "which fenced block is the program", "single_block"
    )
    shards: int = key("reward actors", 1, ge=1)
    placement: Literal["laptop", "one_gpu", "one_node", "multi_node"] = key("where", "laptop")


@dataclass(frozen=True, kw_only=True)
class ScoreArgs(ModelArgs):
    """What `launch/score.py` takes."""

    input: str = key("JSON lines with `prompt` and `response`")
    output: str = key("the same lines with code, valid, reason, score, reward")


def run(args: ScoreArgs) -> None:
    """Score the file."""
    cfg = reward_config(args)
    from actors.scoring import score_file  # noqa: PLC0415 - after the arguments are good

    score_file(cfg, Path(args.input), Path(args.output))


def reward_config(args: ModelArgs) -> Config:
    """The configuration of a run that has a reward group only."""
    max_tokens = args.max_tokens or default_context(args.model)
    return compose_config(
        [
            f"placement={args.placement}",
            "reward=codescaler",
            f"++reward.adapter={args.adapter}",
            f"++reward.dtype={args.dtype}",
            f"++reward.max_tokens={max_tokens}",
            f"++reward.shaping={args.shaping}",
            f"++reward.rule={args.rule}",
            f"++reward.shards={args.shards}",
            f"++reward.model='{args.model}'",
        ]
    )


def default_context(model: str) -> int:
    """Tokens of a local model's context, at most 4,096 (the paper's code scores with that)."""
    directory = Path(model)
    if not (directory / "config.json").is_file():
        return MAX_CONTEXT
    return min(MAX_CONTEXT, context_of(directory) or MAX_CONTEXT)


if __name__ == "__main__":
    sys.exit(main_simple(ScoreArgs, run))
