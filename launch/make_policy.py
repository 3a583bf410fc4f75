"""A tiny policy from nothing: `python launch/make_policy.py output=DIR tasks=code,test,trace`.

It learns what the problems of minipy ask for, and the tasks that a recipe gives it: to write tests,
to say what a program returns, to choose the right one of several programs. `level=branchy
tasks=code` makes one of programs with conditional statements, `tasks=suite` one that writes tests
of given programs. `assets/minipy/policy_tasks` and `assets/minipy/policy_branchy` are made by this
command.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.commands.make_policy import MakePolicyArgs, check_tasks
from conf.offline import offline_config
from launch.common.cli import main_simple
from rl.base.outputs import check_output_dir


def run(args: MakePolicyArgs) -> None:
    """Train it, and leave a Hugging Face directory."""
    check_tasks(args)
    check_output_dir(args.output, "output")
    cfg = offline_config(
        keys={
            "seed": args.seed,
            "policy.row_tokens": args.row_tokens,
            "loop.warm_steps": args.num_steps,
            "loop.warm_batch": args.batch,
            "loop.warm_lr": args.lr,
        }
    )
    from actors.jobs.making import make_policy  # noqa: PLC0415 - after the arguments are good

    make_policy(cfg, args)


if __name__ == "__main__":
    sys.exit(main_simple(MakePolicyArgs, run))
