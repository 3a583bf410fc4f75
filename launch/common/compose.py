"""Composition of a run's configuration: Hydra puts the YAML groups together, `conf` checks them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from actors.plan.shipped import with_shipped_models
from conf.errors import UserError
from conf.groups import CONF_DIR
from conf.keys import as_yaml, nearest
from conf.schema import Config
from conf.validate import ConfigError, Fault, build_config
from launch.common.exits import guarded, said_of
from launch.common.overrides import Lines, groups, parse
from launch.common.ray_job import with_lasting_outputs
from rl.base.console import Console
from rl.run.directory import RunDirectory
from rl.run.start.claim import claimed_run

HYDRA_VERSION_BASE = "1.3"
_HYDRA_SUBDIR = ".hydra"  # unless hydra.output_subdir says otherwise

Run = Callable[[Config], int | None]
Check = Callable[[Config], None]


def compose_all(lines_J: Sequence[Lines], check: Check | None = None) -> list[Config]:
    """The configurations of several jobs, checked by `check` as well.

    Raises `UserError` with the faults of all jobs, each once, with the jobs that have it.
    """
    configs: list[Config] = []
    jobs_of: dict[str, list[str]] = {}
    for number, lines in enumerate(lines_J):
        swept = " ".join(f"{key}={value}" for key, value in lines.swept.items())
        try:
            config = compose_config(lines.overrides)
            if check is not None:
                check(config)
            configs.append(config)
        except (UserError, ConfigError, HydraException, OmegaConfBaseException) as error:
            for fault in said_of(error).splitlines():
                jobs_of.setdefault(fault, []).append(f"job {number} ({swept})")
    if not jobs_of:
        return configs
    raise UserError("\n".join(_of_jobs(fault, jobs_of[fault], len(lines_J)) for fault in jobs_of))


def _of_jobs(fault: str, jobs: Sequence[str], num_jobs: int) -> str:
    if len(jobs) == num_jobs:
        return fault
    more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
    return f"{jobs[0]}{more}: {fault}"


def compose_config(overrides: list[str]) -> Config:
    """The checked configuration of a run.

    Raises `ConfigError`, or a `HydraException` when an override is not one.
    """
    known = groups()
    for override in parse(overrides):
        group, value = override.key_or_group, override.value()
        if group in known and not override.is_delete() and not isinstance(value, str):
            raise _wrong_choice(group, as_yaml(value), known[group])
    with hydra.initialize_config_dir(str(CONF_DIR), version_base=HYDRA_VERSION_BASE):
        try:
            composed = hydra.compose("config", overrides)
        except MissingConfigException as error:
            group, _, choice = (error.missing_cfg_file or "").rpartition("/")
            if not group or not error.options:
                raise
            raise _wrong_choice(group, choice, error.options) from error
    return _checked(composed)


def _checked(composed: DictConfig) -> Config:
    plain = OmegaConf.to_container(composed, resolve=True)
    return with_lasting_outputs(build_config(cast("dict[str, Any]", plain)))


def _wrong_choice(group: str, choice: str, options: Sequence[str]) -> ConfigError:
    close = nearest(choice, options)
    advice = f" (nearest: {close})" if close else ""
    return ConfigError([Fault(group, f"{choice!r} is not one of {', '.join(options)}{advice}")])


def run_under_hydra(
    run: Run, overrides: Sequence[str], check: Check | None, *, multirun: bool
) -> int:
    """Let Hydra write its records and, for a sweep, launch its jobs.

    A run that is none of a sweep has claimed its directory before: `run_recorded`.
    """
    codes: list[int] = []

    def task(composed: DictConfig) -> None:
        config = _checked(composed)
        job = HydraConfig.get()
        if job.mode is not RunMode.MULTIRUN:
            codes.append(guarded(lambda: run(config)))
            return
        named = replace(config, name=Path(job.runtime.output_dir).name)
        codes.append(guarded(lambda: _run_of_hydra(run, named, check)))

    # Hydra reads its command line from `sys.argv` only, and hides tracebacks unless told otherwise.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    argv = sys.argv
    sys.argv = [argv[0], *(["--multirun"] if multirun else []), *overrides]
    try:
        hydra.main(str(CONF_DIR), "config", version_base=HYDRA_VERSION_BASE)(task)()
    finally:
        sys.argv = argv
    return max(codes, default=0)


def run_recorded(run: Run, directory: RunDirectory, overrides: Sequence[str]) -> int:
    """`run_under_hydra`, after which Hydra's records are those of the last run that began there."""
    own = [o.value() for o in parse(overrides) if o.key_or_group == "hydra.output_subdir"]
    subdir = own[-1] if own else _HYDRA_SUBDIR
    if not subdir:  # Hydra writes none
        return run_under_hydra(run, overrides, None, multirun=False)
    records = directory.root / str(subdir)
    before = {path: path.read_bytes() for path in records.glob("*.yaml")}
    config = _version_of(directory.config)
    code = run_under_hydra(run, overrides, None, multirun=False)
    if code and _version_of(directory.config) == config:  # it was refused
        shutil.rmtree(records, ignore_errors=True)
        if before:
            records.mkdir()
        for path, content in before.items():
            path.write_bytes(content)
    return code


def _version_of(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced."""
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _run_of_hydra(run: Run, config: Config, check: Check | None) -> int | None:
    """One run of a sweep that Hydra launches: its records are in the directory already."""
    subdir = HydraConfig.get().output_subdir
    with claim(config, check, keep=[subdir] if subdir else []):
        return run(config)


def claim(
    config: Config, check: Check | None, keep: Collection[str] = ()
) -> AbstractContextManager[str]:
    """The name that a run takes, and its directory for the body; `check` is done before a move."""

    def whole() -> None:
        if check is not None:
            check(config)

    return claimed_run(with_shipped_models(config), Console(), whole, keep)
