"""Judge a reward model: `python launch/judge_rm.py model=DIR pairs=FILE rollouts=DIR output=DIR`.

Pairwise accuracy and calibration from pairs, ranking of programs from rollouts that were executed,
and what the model makes of programs that were dressed up. One card: `card.html`, `card.md`; the
figures are in `figures.json`, every score in `scores.jsonl`. docs/judging.md explains them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.assessment import read_material
from actors.plan.reward_group import REWARD_KEYS, rehearse_reward_model, reward_config
from conf.commands.judge_rm import JudgeArgs
from launch.common.cli import main_simple
from rl.base.outputs import check_output_dir


def run(args: JudgeArgs) -> None:
    """Read and check, score everything once, then write the card."""
    check_output_dir(args.output)
    cfg = reward_config(args.model, args)
    pairs, labelled = read_material(args)
    from actors.plan.checks.text_checks import check_reward_texts  # noqa: PLC0415 - after the arguments are good

    text_path = check_reward_texts(cfg.reward, REWARD_KEYS)
    rehearse_reward_model(cfg.reward)
    from actors.jobs.assess import assess  # noqa: PLC0415 - heavier still

    assess(cfg, args, text_path, pairs, labelled)


if __name__ == "__main__":
    sys.exit(main_simple(JudgeArgs, run))
