"""An arm of an ablation: its arguments, with and without changes."""

from __future__ import annotations

import pytest

from conf.validate import build
from launch.ablation import MOVED, AblationArgs, run
from launch.common.cli import main_simple
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


def test_a_former_key_names_what_is_given_now(capsys: pytest.CaptureFixture[str]) -> None:
    for old in ("policy=a", "reward_model=a", "scale=std", "kl_coef=0.1"):
        assert main_simple(AblationArgs, run, ["label=x", old], moved=MOVED) == 2
        key = old.partition("=")[0]
        assert f"{key}: is no key any more; give changes=[" in capsys.readouterr().err
