"""The recipe of a reward model goes by the size of its base."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.plan.layout.model_shape import shape_of
from actors.plan.rm_recipe import configure
from conf.commands.train_rm import TrainRmArgs
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
