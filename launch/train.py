"""RL with a code reward model: `python launch/train.py [experiment=NAME] [key=value ...]`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.schema import Config
from launch.cli import main


def run(cfg: Config) -> None:
    """Check what can be checked without an engine, then run."""
    # Loads Ray, so it comes after the check of the configuration.
    from actors.experiment import run_experiment  # noqa: PLC0415

    run_experiment(cfg)


if __name__ == "__main__":
    sys.exit(main(run))
