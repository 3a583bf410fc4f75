"""RL with a code reward model: `python launch/train.py [experiment=NAME] [key=value ...]`.

    python launch/train.py experiment=quickstart seed=1 policy.lr=5e-5 name=gentle
    python launch/train.py experiment=quickstart reward=execution   # judged by tests instead
    python launch/train.py experiment=qwen3_8b_codescaler dry_run=true   # layout and memory
    python launch/train.py --multirun seed=0,1,2 policy.lr=5e-5,1e-4   # a sweep, six runs

Without an experiment it is the quickstart: shipped models, two CPU cores, minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.shipped import with_shipped_models
from conf.schema import Config
from launch.common.cli import main
from launch.common.run_checks import check_run, check_run_files
from launch.sweeps.command import run_sweep


def run(cfg: Config) -> None:
    """Check, then run; or only plan."""
    check_run_files(cfg)
    cfg = with_shipped_models(cfg)
    if cfg.dry_run:
        from actors.plan.layout.dry_run import dry_run  # noqa: PLC0415 - after the configuration is good

        dry_run(cfg)
        return
    from actors.jobs.experiment import run_experiment  # noqa: PLC0415

    run_experiment(cfg)


if __name__ == "__main__":
    sys.exit(main(run, sweep=run_sweep, check=check_run))
