"""RL with a code reward model: `python launch/train.py [experiment=NAME] [key=value ...]`.

    python launch/train.py experiment=quickstart seed=1 policy.lr=5e-5 name=gentle
    python launch/train.py experiment=quickstart reward=execution   # judged by tests instead
    python launch/train.py experiment=qwen3_8b_codescaler dry_run=true   # layout and memory
    python launch/train.py --multirun seed=0,1,2 policy.lr=5e-5,1e-4   # a sweep, six runs

Without an experiment it is the quickstart: shipped models, two CPU cores, minutes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.schema import Config
from launch.common.cli import main
from launch.sweeps.command import run_sweep
from reward.model.files import read_system
from rl.base.outputs import check_output_dir
from rl.text.chat_template import read_template


def check(cfg: Config) -> None:
    """Refuse what can be refused without an engine. A dry run says for itself what it lacks."""
    if cfg.dry_run:
        return
    # Each import is heavier than the one before, so that bad input is refused at once.
    from actors.plan.checks import check_inputs  # noqa: PLC0415

    if cfg.loop.enabled:  # written after minutes
        check_output_dir(cfg.loop.cache_dir, "loop.cache_dir")
        if cfg.loop.export_dir is not None:
            check_output_dir(cfg.loop.export_dir, "loop.export_dir")
    check_inputs(with_shipped_models(cfg))


def run(cfg: Config) -> None:
    """Check, then run; or only plan."""
    check(cfg)
    cfg = with_shipped_models(cfg)
    if cfg.dry_run:
        from actors.plan.dry_run import dry_run  # noqa: PLC0415 - after the configuration is good

        dry_run(cfg)
        return
    from actors.jobs.experiment import run_experiment  # noqa: PLC0415

    run_experiment(cfg)


def with_shipped_models(cfg: Config) -> Config:
    """The models of `assets/` are found from whatever folder the command is started in.

    Files that hold a text, which is a chat template or a system turn, are read here: actors on
    other machines are given the text.
    """
    reward_model = cfg.reward.model and shipped(cfg.reward.model)
    template = read_template(cfg.model.chat_template, "model.chat_template")
    system = read_system(cfg.reward.system, "reward.system")
    return replace(
        cfg,
        model=replace(cfg.model, path=shipped(cfg.model.path), chat_template=template),
        reward=replace(cfg.reward, model=reward_model, system=system),
    )


def shipped(path: str) -> str:
    """Where `assets/...` lies, if the repository ships it; any other path as it is."""
    here = Path(__file__).resolve().parents[1] / path
    return str(here) if path.startswith("assets/") and here.is_dir() else path


if __name__ == "__main__":
    sys.exit(main(run, sweep=run_sweep, check=check))
