"""Arguments of `launch/judge_rm.py`."""

from __future__ import annotations

from dataclasses import dataclass

from conf.commands.reward_model import RewardGroupArgs
from conf.schema import key


@dataclass(frozen=True, kw_only=True)
class JudgeArgs(RewardGroupArgs):
    """What `launch/judge_rm.py` takes."""

    model: str = key("directory or hub id of the reward model")
    output: str = key("directory of the card")
    pairs: str | None = key(
        "preference pairs that the model has not seen: a parquet file, a hub id, or a directory of "
        "launch/mine_pairs.py, whose validation part is taken",
        None,
    )
    rollouts: tuple[str, ...] | None = key(
        "run directories, rollout parquet files with verdicts, *.samples.jsonl of "
        "launch/evaluate.py, or patterns",
        None,
    )
    ks: tuple[int, ...] = key("values of k for hits@k", (1, 2, 4), ge=1)
    attacked_pairs: int = key(
        "number of pairs to attack, drawn by the seed; 0 attacks none", 500, ge=0
    )
    seed: int = key("seed of attacks and intervals", 0, ge=0)
