"""Models and texts of a configuration, found from whatever folder a command is started in."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from conf.recipes import OFFLINE
from conf.schema import Config
from reward.model.files import read_system
from rl.text.chat_template import read_template

_TREE = Path(__file__).resolve().parents[2]


def with_shipped_models(cfg: Config) -> Config:
    """The models of `assets/` are found from whatever folder the command is started in.

    Files that hold a text, which is a chat template or a system turn, are read here: actors on
    other machines are given the text.
    """
    reward_model = cfg.reward.model and shipped(cfg.reward.model)
    args = cfg.recipe_args
    if cfg.recipe in OFFLINE and args and isinstance(args.get("data"), str):
        args = {**args, "data": shipped(args["data"])}
    template = read_template(cfg.model.chat_template, "model.chat_template")
    system = read_system(cfg.reward.system, "reward.system")
    untested = cfg.data.untested_path and shipped(cfg.data.untested_path)
    return replace(
        cfg,
        data=replace(cfg.data, untested_path=untested),
        model=replace(cfg.model, path=shipped(cfg.model.path), chat_template=template),
        reward=replace(cfg.reward, model=reward_model, system=system),
        recipe_args=args,
    )


def shipped(path: str) -> str:
    """Where `assets/...` lies, if the repository ships it; any other path as it is."""
    here = _TREE / path
    return str(here) if path.startswith("assets/") and os.path.exists(here) else path
