"""Preference pairs -> reward model: `python launch/train_rm.py data=PAIRS model=BASE output=DIR`.

Bradley-Terry on DeepSpeed ZeRO-3 ranks, from a causal language model or a sequence classifier. The
output is a Hugging Face sequence classifier with a card; docs/reward_model.md describes the keys.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.checks.engine_support import EngineNeeds, device_of, engine_note
from actors.plan.layout.model_shape import shape_of
from actors.plan.rm_checks import check_arguments, claim_of, read_training_pairs
from conf.commands.train_rm import TrainRmArgs
from launch.common.cli import main_simple
from rl.base.console import Console
from rl.base.outputs import check_output_dir
from rl.run.start.claim import claimed

RESULT = "training.json"


def run(args: TrainRmArgs) -> None:
    """Train the reward model."""
    output = check_output_dir(args.output)
    if args.resume == "auto" and (output / RESULT).is_file():
        sys.stdout.write(f"{output} is finished; resume=never overwrite=true trains it again\n")
        return
    shape = shape_of(args.model, scores=True)
    check_arguments(args, shape)
    if args.dry_run:
        from actors.plan.layout.dry_run import dry_run_training  # noqa: PLC0415 - as below
        from actors.plan.rm_recipe import configure  # noqa: PLC0415

        dry_run_training(configure(args, shape), args.model, shape)
        return
    train, validation = read_training_pairs(args)
    from actors.cluster.bundles import Needs  # noqa: PLC0415 - after the arguments are good
    from actors.plan.checks.preflight import preflight  # noqa: PLC0415
    from actors.plan.checks.rehearsal import rehearse  # noqa: PLC0415
    from actors.plan.rm_recipe import configure  # noqa: PLC0415

    cfg = configure(args, shape)
    preflight(cfg, Needs(policy=cfg.policy.ranks))
    becomes = rehearse(args.model, "model", "score", num_tokens=cfg.reward.max_tokens, saves=True)
    if becomes is not None:
        _say_what_scores(args, becomes)
    from actors.stages.rm_training import plan_training, run_training  # noqa: PLC0415 - heavier

    job = plan_training(args, cfg, shape, train, validation)
    with claimed(claim_of(args), Console()):
        run_training(cfg, job, output / RESULT)


def _say_what_scores(args: TrainRmArgs, architecture: str) -> None:
    """Say it before the training where no engine here can hold what comes out."""
    needs = EngineNeeds("pooling", device_of(args.placement))
    note = engine_note(Path(args.model), architecture, needs)
    if note is not None:
        Console().say(note)


if __name__ == "__main__":
    sys.exit(main_simple(TrainRmArgs, run))
