"""Problems without tests: `python launch/make_problems.py output=DIR num=400`.

Recombines problems of minipy, or has a model write new ones after those of `data=FILE`; samples
programs of a policy for each, and keeps those on which the programs agree often enough, but not too
often. `problems.parquet` has canonical rows for `data.untested_path`, `card.json` what each filter
left out. docs/synthetic.md has the rules.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.making import KEYS, configure_making, read_known
from conf.commands.make_problems import MakeProblemsArgs, check_bounds, check_writer
from launch.common.cli import main_simple
from rl.base.outputs import check_output_dir


def run(args: MakeProblemsArgs) -> None:
    """Check what can be checked without an engine, then make and sift."""
    check_bounds(args)
    check_writer(args)
    output = check_output_dir(args.output)
    known = read_known(args)
    cfg = configure_making(args, output)
    from actors.plan.checks.rehearsal import rehearse  # noqa: PLC0415 - heavy
    from actors.stages.problem_making import make_problems  # noqa: PLC0415

    rehearse(cfg.model.path, "policy", "lm")
    if cfg.reward.model is not None:
        rehearse(cfg.reward.model, KEYS.model, "score", num_tokens=cfg.reward.max_tokens)
    make_problems(cfg, args, known)


if __name__ == "__main__":
    sys.exit(main_simple(MakeProblemsArgs, run))
