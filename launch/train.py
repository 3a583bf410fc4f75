"""RL with a code reward model: `python launch/train.py [experiment=NAME] [key=value ...]`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.schema import Config
from launch.cli import main


def check(cfg: Config) -> None:
    """Refuse what can be refused without an engine."""
    # Each import is heavier than the one before, so that bad input is refused at once.
    from actors.checks import check_inputs  # noqa: PLC0415

    check_inputs(with_shipped_models(cfg))


def run(cfg: Config) -> None:
    """Check, then run."""
    check(cfg)
    from actors.experiment import run_experiment  # noqa: PLC0415

    run_experiment(with_shipped_models(cfg))


def with_shipped_models(cfg: Config) -> Config:
    """The models of `assets/` are found from whatever folder the command is started in."""
    reward_model = cfg.reward.model and shipped(cfg.reward.model)
    return replace(
        cfg,
        model=replace(cfg.model, path=shipped(cfg.model.path)),
        reward=replace(cfg.reward, model=reward_model),
    )


def shipped(path: str) -> str:
    """Where `assets/...` lies, if the repository ships it; any other path as it is."""
    here = Path(__file__).resolve().parents[1] / path
    return str(here) if path.startswith("assets/") and here.is_dir() else path


if __name__ == "__main__":
    sys.exit(main(run, check=check))
