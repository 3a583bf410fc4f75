"""Command lines: `key=value` overrides, `--help`, and a configuration that is checked first.

A configuration is checked before the command imports anything heavy.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar, cast

from omegaconf import OmegaConf

from conf.errors import UserError
from conf.keys import keys_of
from conf.schema import Config
from conf.validate import build, cautions, to_dict
from launch.common.compose import Check, Run, claim, compose_all, run_recorded, run_under_hydra
from launch.common.exits import guarded
from launch.common.failures import report
from launch.common.help import INFO, about, help_of_run, help_of_schema
from launch.common.overrides import Lines, expand, forced_overrides, nested, override, parse
from launch.common.ray_job import job_runtime_env
from rl.base.outputs import check_output_dir
from rl.run.directory import RunDirectory

# Read when a library is loaded, which is after this; its bars would stand between our lines.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

T = TypeVar("T")
Sweep = Callable[[Sequence[Lines], Sequence[Config]], int]

_HYDRAS_WAYS = ("hydra/launcher", "hydra/sweeper")


def main(
    run: Run,
    argv: Sequence[str] | None = None,
    *,
    sweep: Sweep,
    check: Check | None = None,
) -> int:
    """Compose and check the configuration, then `run` it; returns the exit code.

    `--multirun` checks every job, with `check` too, before `sweep` starts the first one; each is
    this command again, in a process and a run directory of its own. With a `hydra/launcher` or
    `hydra/sweeper` of the user, Hydra calls `run` for each job.
    """

    def command() -> int:
        args = _parsed(argv, composed=True)
        if args.help:
            sys.stdout.write(help_of_run(about(run)))
            return 0
        return _compose_and_run(run, check, sweep, args)

    return guarded(command)


def main_simple(
    schema: type[T],
    run: Callable[[T], int | None],
    argv: Sequence[str] | None = None,
    *,
    moved: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Fill `schema` (declared with `conf.schema.key`) from overrides, then `run`; the exit code.

    `moved` has what is given now instead of a former key.
    """

    def command() -> int | None:
        args = _parsed(argv, composed=False)
        if args.help:
            sys.stdout.write(help_of_schema(schema, about(run)))
            return 0
        return _fill_and_run(schema, run, args, moved)

    return guarded(command)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as every other check does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"options: {message}; --help lists them, and keys are given as key=value")


def _parsed(argv: Sequence[str] | None, *, composed: bool) -> argparse.Namespace:
    """The options and overrides of a command line; raises UserError for what is neither."""
    given = sys.argv[1:] if argv is None else list(argv)
    args, unknown = _parser(composed=composed).parse_known_intermixed_args(given)
    if options := [text for text in unknown if text.startswith("-")]:
        raise UserError("\n".join(_not_an_option(option, given) for option in options))
    args.overrides += unknown
    return args


def _not_an_option(option: str, given: Sequence[str]) -> str:
    """What to say of `--seed`, which probably stands for `seed=...`."""
    name, equals, value = option.lstrip("-").partition("=")
    after = given[given.index(option) + 1 :]
    if not equals and after and "=" not in after[0] and not after[0].startswith("-"):
        value = after[0]
    key = name.replace("-", "_") or "key"
    return f"{option}: is not an option; a key is given as {key}={value or 'VALUE'}"


def _parser(*, composed: bool) -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    parser.add_argument("--resolve", action="store_true")
    if composed:
        parser.add_argument("-m", "--multirun", action="store_true")
        parser.add_argument("-cd", "--config-dir", type=Path)
        parser.add_argument("--info", nargs="?", const="all", choices=INFO)
    return parser


def _compose_and_run(run: Run, check: Check | None, sweep: Sweep, args: argparse.Namespace) -> int:
    _check_options(args)
    overrides = forced_overrides(args.overrides)
    if args.config_dir is not None:
        if not args.config_dir.is_dir():
            raise UserError(f"--config-dir: {str(args.config_dir)!r} is not a directory")
        overrides.append(f"hydra.searchpath=[file://{args.config_dir.resolve()}]")
    by_hydra = any(o.key_or_group in _HYDRAS_WAYS for o in parse(overrides))
    lines_J = list(expand(overrides, sweep=args.multirun, intervals=by_hydra))
    configs = compose_all(lines_J, check if args.multirun and not args.cfg else None)
    if args.info:
        return run_under_hydra(run, [f"--info={args.info}", *overrides], check, multirun=False)
    if args.cfg:
        sys.stdout.write("---\n".join(OmegaConf.to_yaml(to_dict(config)) for config in configs))
        return 0
    for config in configs:
        check_output_dir(config.output_dir, "output_dir")  # Hydra makes it before we are asked
    for caution in dict.fromkeys(itertools.chain.from_iterable(map(cautions, configs))):
        report(str(caution), "warning")
    if all(config.dry_run for config in configs):  # leaves no run directory behind
        return max(guarded(lambda config=config: run(config)) for config in configs)
    if args.multirun and not by_hydra:
        return sweep(lines_J, configs)
    if args.multirun:  # Hydra names the runs, and each claims its directory
        return run_under_hydra(run, overrides, check, multirun=True)
    return _run_in_its_directory(run, check, configs[0], overrides)


def _run_in_its_directory(
    run: Run, check: Check | None, config: Config, overrides: Sequence[str]
) -> int:
    """Claim the directory before Hydra writes its records there, and run."""
    with claim(config, check) as name:
        own = [override("name", name)] if name != config.name else []
        if job_runtime_env() is not None:  # so that Hydra's records lie beside the others
            own.append(override("output_dir", config.output_dir))
        directory = RunDirectory.of(replace(config, name=name))
        return run_recorded(run, directory, [*overrides, *own])


def _check_options(args: argparse.Namespace) -> None:
    """Hydra's own rule; what `--cfg` shows is resolved with and without it."""
    if args.resolve and not args.cfg:
        raise UserError("--resolve: goes with --cfg job")


def _fill_and_run(
    schema: type[T],
    run: Callable[[T], int | None],
    args: argparse.Namespace,
    moved: Mapping[str, str],
) -> int | None:
    _check_options(args)
    lists = {key.path for key in keys_of(schema) if key.is_list}
    filled = build(schema, nested(parse(args.overrides), lists), moved)
    if args.cfg:
        sys.stdout.write(OmegaConf.to_yaml(asdict(cast("Any", filled))))
        return 0
    return run(filled)
