"""What every command that starts runs of `launch/train.py` checks before the first one."""

from __future__ import annotations

from actors.plan.shipped import with_shipped_models
from conf.schema import Config
from rl.base.outputs import check_output_dir
from rl.run.checkpoint import find_resumable
from rl.run.directory import RunDirectory


def check_run(cfg: Config) -> None:
    """Refuse what can be refused without an engine. A dry run says for itself what it lacks."""
    check_run_files(cfg)
    if not cfg.dry_run:
        from actors.plan.checks.inputs import check_contents  # noqa: PLC0415

        check_contents(with_shipped_models(cfg))


def check_run_files(cfg: Config) -> None:
    """Refuse what can be refused within a second: the first part of `check_run`."""
    if cfg.dry_run:
        return
    if cfg.resume != "never":  # reads every byte, and needs nothing of what follows
        find_resumable(RunDirectory.of(cfg).checkpoints)
    # Each import is heavier than the one before, so that bad input is refused at once.
    from actors.plan.checks.inputs import check_files  # noqa: PLC0415

    if cfg.loop.enabled:  # written after minutes
        check_output_dir(cfg.loop.cache_dir, "loop.cache_dir")
        if cfg.loop.export_dir is not None:
            check_output_dir(cfg.loop.export_dir, "loop.export_dir")
    check_files(with_shipped_models(cfg))
