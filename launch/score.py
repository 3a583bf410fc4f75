"""Score answers: `python launch/score.py model=DIR input=IN.jsonl output=OUT.jsonl`.

Each line `{"prompt": str or messages, "response": str}` gains `code, valid, reason, score, reward`.
The lines go through the reward group of training, so a score here is a score there. A run as input
has its sampled programs scored again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.reward_group import REWARD_KEYS, answer_config, rehearse_reward_model
from conf.commands.reward_model import AnswerArgs
from conf.schema import key
from launch.common.cli import main_simple
from reward.judges.answers import read_answers
from rl.base.outputs import check_output


@dataclass(frozen=True, kw_only=True)
class ScoreArgs(AnswerArgs):
    """What `launch/score.py` takes."""

    input: str = key(
        "JSON lines file with `prompt` and `response`; or a run directory, or its parquet files"
    )
    output: str = key("JSON lines file of the same rows with code, valid, reason, score, reward")


def run(args: ScoreArgs) -> None:
    """Score the file."""
    output = check_output(args.output, "FILE.jsonl")
    cfg = answer_config(args)
    groups = read_answers(Path(args.input))
    from actors.plan.checks.text_checks import check_reward_texts  # noqa: PLC0415 - after the arguments are good

    check_reward_texts(cfg.reward, REWARD_KEYS)
    from actors.jobs.scoring import score_file  # noqa: PLC0415 - after the arguments are good

    rehearse_reward_model(cfg.reward)
    score_file(cfg, groups, output)


if __name__ == "__main__":
    sys.exit(main_simple(ScoreArgs, run))
