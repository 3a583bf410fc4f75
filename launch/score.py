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

from conf.schema import key
from launch.arguments import RewardGroupArgs, reward_config
from launch.cli import main_simple


@dataclass(frozen=True, kw_only=True)
class ScoreArgs(RewardGroupArgs):
    """What `launch/score.py` takes."""

    model: str = key("directory or hub id of the reward model")
    input: str = key("JSON lines with `prompt` and `response`")
    output: str = key("the same lines with code, valid, reason, score, reward")
    shaping: Literal["softplus", "raw", "sigmoid", "rank"] = key("score -> reward", "softplus")
    rule: Literal["single_block", "last_block"] = key(
        "which fenced block is the program", "single_block"
    )


def run(args: ScoreArgs) -> None:
    """Score the file."""
    cfg = reward_config(
        args.model, args, f"++reward.shaping={args.shaping}", f"++reward.rule={args.rule}"
    )
    from actors.scoring import score_file  # noqa: PLC0415 - after the arguments are good

    score_file(cfg, Path(args.input), Path(args.output))


if __name__ == "__main__":
    sys.exit(main_simple(ScoreArgs, run))
