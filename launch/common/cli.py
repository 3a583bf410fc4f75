"""Command line of every command: `key=value` overrides, `--help`, and exit codes 0, 1 and 2.

Bad input ends with exit code 2 and its message on stderr; other failures that the project raises on
purpose with 1 and one line; anything else is a defect and shows its traceback. A configuration is
checked before the command imports anything heavy.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, Transformer
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import ProjectError, UserError
from conf.groups import CONF_DIR, about_choice, about_group, choices
from conf.keys import Key, as_yaml, keys_of, nearest
from conf.schema import Config
from conf.validate import ConfigError, Fault, build, build_config, cautions, to_dict
from launch.common.outputs import check_output_dir
from launch.common.ray_job import job_runtime_env, with_lasting_outputs

# Read when a library is loaded, which is after this; its bars would stand between our lines.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

T = TypeVar("T")

HYDRA_VERSION_BASE = "1.3"
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # of Hydra
EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2
_HYDRAS_WAYS = ("hydra/launcher", "hydra/sweeper")

COMMON_KEYS = (
    "seed",
    "name",
    "resume",
    "dry_run",
    "policy.lr",
    "algorithm.group_size",
    "algorithm.prompts_per_step",
    "algorithm.max_staleness",
    "reward.shards",
    "rollout.engines",
    "policy.ranks",
)


Run = Callable[[Config], int | None]
Check = Callable[[Config], None]


def main(run: Run, argv: Sequence[str] | None = None, check: Check | None = None) -> int:
    """Compose and check the configuration, then `run` it; returns the exit code.

    `--multirun` checks every job of the sweep, with `check` too, before the first one starts; then
    each is this command again, in a process and a run directory of its own (`launch.sweeps.sweep`).
    With a `hydra/launcher` or `hydra/sweeper` of the user, Hydra calls `run` for each job.
    """
    args = _parser(composed=True).parse_intermixed_args(argv)
    if args.help:
        sys.stdout.write(_help_of_run(_about(run)))
        return 0
    return guarded(lambda: _compose_and_run(run, check, args))


def main_simple(
    schema: type[T], run: Callable[[T], int | None], argv: Sequence[str] | None = None
) -> int:
    """Fill `schema` (declared with `conf.schema.key`) from overrides, then `run`; the exit code."""
    args = _parser(composed=False).parse_intermixed_args(argv)
    if args.help:
        sys.stdout.write(help_of_schema(schema, _about(run)))
        return 0
    return guarded(lambda: _fill_and_run(schema, run, args))


def _parser(*, composed: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    parser.add_argument("--resolve", action="store_true")
    if composed:
        parser.add_argument("-m", "--multirun", action="store_true")
        parser.add_argument("-cd", "--config-dir", type=Path)
        parser.add_argument("--info", nargs="?", const="all", choices=INFO)
    return parser


def guarded(call: Callable[[], int | None]) -> int:
    """The exit code of `call`; the errors that are part of the contract become messages."""
    try:
        return call() or 0
    except (UserError, ConfigError) as error:
        _report(str(error))
        return EXIT_BAD_INPUT
    except OverrideParseException as error:
        _report(_unreadable(error.override, error.message))
        return EXIT_BAD_INPUT
    except (HydraException, OmegaConfBaseException) as error:
        _report(str(error))
        return EXIT_BAD_INPUT
    except ProjectError as error:
        _report(f"{type(error).__name__}: {error}")
        return EXIT_FAILURE
    except KeyboardInterrupt:  # before there was anything to take down, or for the second time
        _report("stopped by SIGINT")
        return EXIT_FAILURE


def override(key: str, text: str) -> str:
    """A command-line override that sets `key` to this very text."""
    escaped = text.replace("'", "\\'")
    return f"++{key}='{escaped}'"


def _unreadable(given: str, message: str) -> str:
    """What to say of an override that Hydra's grammar does not know."""
    *causes, _ = message.splitlines()  # the last line refers to Hydra's manual
    said = f"{given!r} is not an override of the form key=value ({(causes or [message])[-1]})"
    name, equals, value = given.partition("=")
    if equals and "'" not in value:
        said += f"; a text with brackets, quotes or spaces is quoted twice: \"{name}='{value}'\""
    return said


def _report(message: str, kind: str = "error") -> None:
    sys.stderr.writelines(f"{kind}: {line}\n" for line in message.splitlines() if line.strip())


# --- a composed run ----------------------------------------------------------------------------


def _compose_and_run(run: Run, check: Check | None, args: argparse.Namespace) -> int:
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
        return _run_under_hydra(run, [f"--info={args.info}", *overrides], multirun=False)
    if args.cfg:
        sys.stdout.write("---\n".join(OmegaConf.to_yaml(to_dict(config)) for config in configs))
        return 0
    for config in configs:
        check_output_dir(config.output_dir, "output_dir")  # Hydra makes it before we are asked
    for caution in dict.fromkeys(itertools.chain.from_iterable(map(cautions, configs))):
        _report(str(caution), "warning")
    if all(config.dry_run for config in configs):  # leaves no run directory behind
        return max(guarded(lambda config=config: run(config)) for config in configs)
    if args.multirun and not by_hydra:
        from launch.sweeps.command import run_sweep  # noqa: PLC0415 - it needs this module

        return run_sweep(lines_J, configs)
    if job_runtime_env() is not None:  # so that Hydra's records lie beside the others
        overrides.append(override("output_dir", configs[0].output_dir))
    return _run_under_hydra(run, overrides, multirun=args.multirun)


def _check_options(args: argparse.Namespace) -> None:
    """Hydra's own rule; what `--cfg` shows is resolved with and without it."""
    if args.resolve and not args.cfg:
        raise UserError("--resolve: goes with --cfg job")


def forced_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides of the command line as Hydra has to see them."""
    return [_forced(override) for override in parse(overrides)]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides of the form `key=value`; raises Hydra's OverrideParseException for others."""
    return OverridesParser.create().parse_overrides(list(overrides))


def _forced(override: Override) -> str:
    name = override.key_or_group
    line = cast("str", override.input_line)
    chooses = name in groups() or "/" in name or override.package is not None
    hydras_own = chooses or override.is_hydra_override() or override.is_delete()
    return line if hydras_own else f"++{line.lstrip('+')}"


def groups() -> dict[str, list[str]]:
    """Groups of the shipped configuration with their choices."""
    return {group: list(files) for group, files in choices().items()}


class Lines(NamedTuple):
    """The overrides of one job."""

    swept: dict[str, str]  # the keys that have several values in the sweep, with that of this job
    overrides: list[str]  # all of them, as lines


def expand(overrides: Sequence[str], *, sweep: bool, intervals: bool = False) -> Iterator[Lines]:
    """The overrides of each job of a sweep; one job unless it is one.

    Raises `UserError` for several values without a sweep, and for a range of values unless somebody
    chooses from it (`intervals`).
    """
    axes: list[list[tuple[str | None, str, str]]] = []
    for override in parse(overrides):
        key, line = override.get_key_element(), cast("str", override.input_line)
        if override.is_sweep_override() and not sweep:
            given = f"{override.key_or_group}={override.get_value_string()}"
            raise UserError(
                f"{given}: several values (add --multirun for a run with each; quote a text that "
                "has commas; write a list as [a,b])"
            )
        if override.is_discrete_sweep():
            name, values = override.key_or_group, override.sweep_string_iterator()
            axes.append([(name, value, f"{key}={value}") for value in values])
        elif not override.is_sweep_override():
            axes.append([(None, "", line)])
        elif not intervals:
            raise UserError(
                f"{line.lstrip('+')}: a range has no end of values (list some, as in "
                f"{override.key_or_group}=1,2, or search it with launch/tune.py)"
            )
    for job in itertools.product(*axes):
        swept = {name: value for name, value, _ in job if name is not None}
        yield Lines(swept, [line for _, _, line in job])


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
            for fault in str(error).splitlines():
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


def _run_under_hydra(run: Run, overrides: Sequence[str], *, multirun: bool) -> int:
    """Let Hydra make the run directories and, for a sweep, launch its jobs."""
    codes: list[int] = []

    def task(composed: DictConfig) -> None:
        config = _checked(composed)
        job = HydraConfig.get()
        if job.mode is RunMode.MULTIRUN:
            config = replace(config, name=Path(job.runtime.output_dir).name)
        codes.append(guarded(lambda: run(config)))

    # Hydra reads its command line from `sys.argv` only, and hides tracebacks unless told otherwise.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    argv = sys.argv
    sys.argv = [argv[0], *(["--multirun"] if multirun else []), *overrides]
    try:
        hydra.main(str(CONF_DIR), "config", version_base=HYDRA_VERSION_BASE)(task)()
    finally:
        sys.argv = argv
    return max(codes, default=0)


# --- a flat command ----------------------------------------------------------------------------


def _fill_and_run(
    schema: type[T], run: Callable[[T], int | None], args: argparse.Namespace
) -> int | None:
    _check_options(args)
    lists = {key.path for key in keys_of(schema) if key.is_list}
    filled = build(schema, _nested(parse(args.overrides), lists))
    if args.cfg:
        sys.stdout.write(OmegaConf.to_yaml(asdict(cast("Any", filled))))
        return 0
    return run(filled)


def _nested(overrides: Iterable[Override], lists: Set[str]) -> dict[str, Any]:
    """Nested plain values of `a.b=value` overrides; `a=1,2` is a list where the key is one."""
    raw: dict[str, Any] = {}
    for override in overrides:
        path = override.key_or_group
        is_list = path in lists and override.is_discrete_sweep()
        if (override.is_sweep_override() and not is_list) or override.is_delete():
            raise UserError(f"{override.input_line}: this command takes one value for each key")
        *parents, leaf = path.split(".")
        section = raw
        for parent in parents:
            inner = section.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UserError(f"{override.input_line}: {parent!r} already has the value {inner}")
            section = cast("dict[str, Any]", inner)
        section[leaf] = _plain(override) if is_list else override.value()
    return raw


def _plain(override: Override) -> list[Any]:
    """The values of `a=1,2`, without the quotes of Hydra's grammar."""
    values = override.sweep_iterator(Transformer.identity)
    return [value.text if isinstance(value, QuotedString) else value for value in values]


# --- help --------------------------------------------------------------------------------------


class _Row(NamedTuple):
    name: str
    text: str


_OF_ALL = (
    _Row("-c, --cfg job", "show the checked configuration, resolved, and stop"),
    _Row("-h, --help", "show this"),
)
_OF_A_RUN = (
    _Row("-m, --multirun", "one run for each combination of key=value1,value2"),
    _Row("-cd, --config-dir DIR", "look for groups in DIR as well"),
    _Row("--info [WHAT]", f"what Hydra composes from: {', '.join(INFO)}"),
)


def _about(run: Callable[..., Any]) -> str:
    """What a command says of itself: the docstring of the module that holds its `run`."""
    return (sys.modules[run.__module__].__doc__ or "").strip()


def _help_of_run(about: str) -> str:
    keys = {key.path: key for key in keys_of(Config)}
    quickstart = compose_config([])
    tables: list[str] = []
    for group, files in choices().items():
        tables.append(f"  {group}: {about_group(group)}")
        rows = [_Row(f"  {group}={name}", about_choice(file)) for name, file in files.items()]
        tables += _columns(rows)
    return "\n".join(
        [
            f"usage: {_command()} [options] [group=choice ...] [key=value ...]",
            "",
            about,
            "",
            "Groups and their choices:",
            *tables,
            "",
            "Common keys (those that YAML files fill, with the value of the quickstart):",
            *_columns(_row_of_run(keys[path], quickstart) for path in COMMON_KEYS),
            "",
            "Options:",
            *_columns([*_OF_A_RUN, *_OF_ALL]),
            "",
            "docs/reference.md has every key, docs/index.md everything else.",
            "",
        ]
    )


def help_of_schema(schema: type, about: str) -> str:
    """The help of a command: what it does, its keys, its options."""
    # What must be given stands first.
    rows = _columns(map(_row, sorted(keys_of(schema), key=lambda key: not key.required)))
    return "\n".join(
        [
            f"usage: {_command()} [options] [key=value ...]",
            "",
            about,
            "",
            "Keys:",
            *(rows or ["  none"]),
            "",
            "Options:",
            *_columns(_OF_ALL),
            "",
        ]
    )


def _row(key: Key) -> _Row:
    default = "" if key.required else f"; default {as_yaml(key.default)}"
    return _Row(f"{key.path}=", f"{key.doc} [{key.rule}{default}]")


def _row_of_run(key: Key, quickstart: Config) -> _Row:
    if not key.required:
        return _row(key)
    value: object = quickstart
    for name in key.path.split("."):
        value = getattr(value, name)
    return _Row(f"{key.path}=", f"{key.doc} [{key.rule}; quickstart {as_yaml(value)}]")


def _columns(rows: Iterable[_Row]) -> list[str]:
    table = list(rows)
    width = max((len(row.name) for row in table), default=0)
    return [f"  {row.name:<{width}}  {row.text}" for row in table]


def _command() -> str:
    return f"python launch/{Path(sys.argv[0]).name}"
