"""Rollouts -> preference pairs: `python launch/mine_pairs.py input=RUN_DIR output=DIR`.

Writes `train.parquet` and `validation.parquet` with the columns of CodeScalerPair-51K and where
each program comes from. docs/reward_model.md describes rules and files.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.mining import check_problems, known_problems, made_per_problem
from conf.commands.mine_pairs import MineArgs
from conf.offline import offline_config
from launch.common.cli import main_simple
from reward.pairs.mining import MiningConfig
from reward.pairs.near_miss import NearMissConfig
from reward.pairs.rollout_sources import RolloutCounts, count_rollouts, find_rollouts
from reward.verify.protocols import execution_of
from rl.base.outputs import check_output_dir


def run(args: MineArgs) -> None:
    """Mine the pairs."""
    output = check_output_dir(args.output)
    execution = execution_of(args.sandbox, args)
    files = find_rollouts(args.input)
    counts = count_rollouts(files)
    prompts = {prompt.id: prompt for prompt in known_problems(args, files, counts)}
    check_problems(counts, prompts)
    mutants, swaps = made_per_problem(args, with_tests=bool(prompts))
    sys.stdout.write(_found(counts))
    from actors.jobs.mining import MineJob, mine  # noqa: PLC0415 - after the arguments are good

    job = MineJob(
        files=tuple(files),
        prompts=prompts,
        output=output,
        mining=MiningConfig(
            per_prompt=args.pairs_per_problem,
            seed=args.seed,
            near_miss=args.near_miss,
            rule=args.rule,
        ),
        near_miss=NearMissConfig(
            mutants_per_prompt=mutants,
            swaps_per_prompt=swaps,
            seed=args.seed,
        ),
        validation_share=args.validation_share,
        sandbox=execution,
        test_timeout_s=args.test_timeout_s,
    )
    mine(offline_config().ray, job, executes=bool(counts.unverified))


def _found(counts: RolloutCounts) -> str:
    """What the rollouts hold, in a line."""
    said = f"{counts.num_rows} rollouts, {counts.num_codes} with a valid program"
    if counts.num_undecided:
        said += f", {counts.num_undecided} of these left out: the sandbox had failed"
    if counts.num_unjudged:
        said += f", {counts.num_unjudged} left out: they could not be judged"
    return f"{said}\n"


if __name__ == "__main__":
    sys.exit(main_simple(MineArgs, run))
