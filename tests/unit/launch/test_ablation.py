"""An arm of an ablation: its arguments, with and without changes."""

from __future__ import annotations

import pytest

from conf.validate import build
from launch.ablation import AblationArgs
from launch.common.compose import compose_config
from launch.common.overrides import forced_overrides

pytestmark = pytest.mark.unit


def test_an_arm_needs_a_label_alone() -> None:
    args = build(AblationArgs, {"label": "recipe"})
    assert (args.experiment, args.changes, args.exam) == ("quickstart", None, None)


def test_changes_are_overrides_of_the_experiment() -> None:
    changes = ["recipe=grpo", "recipe_args=null", "algorithm.group_size=16"]
    args = build(AblationArgs, {"label": "programs", "changes": changes})
    assert args.changes is not None
    cfg = compose_config(["experiment=recipe_cure", *forced_overrides(args.changes)])
    assert (cfg.recipe, cfg.recipe_args, cfg.algorithm.group_size) == ("grpo", None, 16)
