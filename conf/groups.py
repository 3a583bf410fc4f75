"""YAML groups as data: choices, and the first sentence of each file's comment."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import yaml

from conf.schema import Config

CONF_DIR = Path(__file__).resolve().parent
_END_OF_SENTENCE = re.compile(r"[.;](?=\s|$)")


def choices() -> dict[str, dict[str, Path]]:
    """Files of each group by name of the choice; `experiment`, which chooses the others, first."""
    directories = sorted(path for path in CONF_DIR.iterdir() if any(path.glob("*.yaml")))
    directories.sort(key=lambda path: path.name != "experiment")
    return {
        path.name: {file.stem: file for file in sorted(path.glob("*.yaml"))} for path in directories
    }


def about_group(group: str) -> str:
    """What the schema says of a group."""
    docs = {item.name: item.metadata["doc"] for item in fields(Config)}
    return (
        "a whole run; has the last word over the groups" if group == "experiment" else docs[group]
    )


def about_choice(file: Path) -> str:
    """The first sentence of a file's leading comment."""
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return _END_OF_SENTENCE.split(" ".join(lines), maxsplit=1)[0]


def keys_set_by(file: Path) -> dict[str, object]:
    """Dotted keys that an experiment gives a value, without those of the groups that it chooses."""
    raw: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    return _flat(cast("dict[str, Any]", raw), "")


def files_chosen_by(file: Path) -> list[str]:
    """What the defaults list of an experiment chooses, as `group=choice` or another experiment."""
    raw = cast("dict[str, Any]", yaml.safe_load(file.read_text(encoding="utf-8")))
    chosen: list[str] = []
    for entry in cast("list[str | dict[str, str]]", raw.get("defaults", [])):
        if isinstance(entry, dict):
            chosen += [f"{g.removeprefix('override /')}={c}" for g, c in entry.items()]
        elif entry != "_self_":
            chosen.append(f"experiment={entry}")
    return chosen


def _flat(raw: dict[str, Any], prefix: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in raw.items():
        if isinstance(value, dict):
            found |= _flat(cast("dict[str, Any]", value), f"{prefix}{name}.")
        elif f"{prefix}{name}" not in ("defaults", "experiment"):
            found[f"{prefix}{name}"] = value
    return found
