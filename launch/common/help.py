"""Help texts of the commands: what one does, its groups and keys, its options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from conf.groups import about_choice, about_group, choices
from conf.keys import Key, as_yaml, keys_of
from conf.schema import Config
from launch.common.compose import compose_config

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # of Hydra
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


class _Row(NamedTuple):
    name: str
    text: str


_CONFIG = _Row("-c, --cfg job", "show the checked configuration, resolved, and stop")
_HELP = _Row("-h, --help", "show this")
_OF_A_RUN = (
    _Row("-m, --multirun", "one run for each combination of key=value1,value2"),
    _Row("-cd, --config-dir DIR", "look for groups in DIR as well"),
    _Row("--info [WHAT]", f"what Hydra composes from: {', '.join(INFO)}"),
)


def about(run: Callable[..., Any]) -> str:
    """What a command says of itself: the docstring of the module that holds its `run`."""
    return (sys.modules[run.__module__].__doc__ or "").strip()


def help_of_run(about: str) -> str:
    """The help of a composed run: what it does, its groups, its common keys, its options."""
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
            "Common keys, each with its value in the quickstart:",
            *_columns(_row_of_run(keys[path], quickstart) for path in COMMON_KEYS),
            "",
            "Options:",
            *_columns([*_OF_A_RUN, _CONFIG, _HELP]),
            "",
            "docs/reference.md has every key, docs/index.md everything else.",
            "",
        ]
    )


def help_of_schema(schema: type, about: str, *, shows_config: bool = True) -> str:
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
            *_columns([_CONFIG, _HELP] if shows_config else [_HELP]),
            "",
        ]
    )


def _row(key: Key) -> _Row:
    default = "" if key.required else f"; default {as_yaml(key.default)}"
    return _Row(f"{key.path}=", f"{key.doc} [{key.rule}{default}]")


def _row_of_run(key: Key, quickstart: Config) -> _Row:
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
