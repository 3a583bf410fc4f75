"""The recipe of a reward model goes by the size of its base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actors.plan.layout.model_shape import shape_of
from actors.plan.rm_recipe import check_settings, configure
from conf.commands.train_rm import TrainRmArgs
from conf.errors import UserError
from conf.validate import ConfigError

pytestmark = pytest.mark.unit


def test_a_rule_between_keys_names_those_of_the_command() -> None:
    args = TrainRmArgs(
        data="pairs",
        model="Qwen/Qwen3-8B",
        output="out",
        max_tokens=512,
        attention="flex_attention",
    )
    with pytest.raises(ConfigError) as caught:
        configure(replace(args, attention="flex_attention"), shape_of(args.model, scores=True))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("attention: flex_attention needs placement.device=cuda")
    assert "got attention=flex_attention, placement.device=cpu (set attention=sdpa)" in line


def test_a_hub_id_that_names_its_size_needs_no_learning_rate() -> None:
    args = TrainRmArgs(data="pairs", model="Qwen/Qwen3-8B", output="out", max_tokens=512)
    cfg = configure(args, shape_of(args.model, scores=True))
    assert cfg.policy.lr == pytest.approx(1e-6, rel=0.1)


def test_a_training_goes_on_with_other_ranks_and_with_nothing_else() -> None:
    before = {"lr": 1e-3, "ranks": 2, "batch_pairs": 8}
    where = Path("checkpoints/step-000002")
    assert check_settings(before, before, where) == ""
    assert check_settings(before, before | {"ranks": 4}, where) == "ranks 2 -> 4"
    with pytest.raises(UserError) as caught:
        check_settings(before, {"lr": 1.0, "ranks": 4, "batch_pairs": 8, "seed": 1}, where)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == ["lr", "seed"]
