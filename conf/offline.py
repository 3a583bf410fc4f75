"""The configuration of a command that runs no experiment: evaluate, score, verify, mine, train_rm.

It is made of the YAML groups and of the defaults of the schema alone, so that no experiment has a
say in it. Hydra is not needed: the groups that are read here choose no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import yaml

from conf.groups import choices
from conf.schema import Config
from conf.validate import build_config

EXPERIMENT = "offline"  # the label of its gauges
# Small, and without a reward model; a command chooses others for the groups that it starts.
BASE: Mapping[str, str] = {
    "data": "minipy",
    "model": "minipy",
    "algorithm": "grpo",
    "rollout": "cpu",
    "reward": "execution",
    "policy": "cpu",
    "placement": "laptop",
}


def offline_config(
    chosen: Mapping[str, str] | None = None, keys: Mapping[str, object] | None = None
) -> Config:
    """The checked configuration of `BASE` with other choices, and with `keys` of dotted names.

    Raises `ConfigError` with every fault.
    """
    raw: dict[str, Any] = {"experiment": EXPERIMENT, "name": "run", "ray": {"env": {}}}
    files = choices()
    for group, choice in {**BASE, **(chosen or {})}.items():
        text = files[group][choice].read_text(encoding="utf-8")
        raw[group] = cast("dict[str, Any]", yaml.safe_load(text))
    for path, value in (keys or {}).items():
        *sections, name = path.split(".")
        inner = raw
        for section in sections:
            inner = cast("dict[str, Any]", inner.setdefault(section, {}))
        inner[name] = value
    return build_config(raw)
