"""What the arguments of a training leave open goes by its base and by the number of its pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actors.plan.layout.model_shape import shape_of
from actors.plan.rm_recipe import configure
from actors.stages.rm_training import plan_training
from conf.commands.train_rm import TrainRmArgs
from reward.pairs.pairs import Pair

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[4] / "assets/minipy/policy"


def test_passes_and_validations_follow_from_size_and_pairs() -> None:
    args = TrainRmArgs(data="pairs", model=str(POLICY), output="out", batch_pairs=2)
    pairs = [
        Pair(prompt_id=f"p{n}", question_content="q", code_pos="a", code_neg="b") for n in range(8)
    ]
    shape = shape_of(args.model, scores=True)
    cfg = configure(args, shape)
    job = plan_training(args, cfg, shape, pairs, [])
    assert (job.epochs, job.evaluate_every) == (6, 3)  # 24 steps, validated 8 times
    assert cfg.policy.share_prefix == "auto"
    assert (job.lr, job.directory, job.settings["epochs"]) == (cfg.policy.lr, Path("out"), 6)
    asked = replace(args, epochs=1, evaluate_every=5, share_prefix="off")
    cfg = configure(asked, shape)
    job = plan_training(asked, cfg, shape, pairs, [])
    assert (job.epochs, job.evaluate_every) == (1, 5)
    assert cfg.policy.share_prefix == job.settings["share_prefix"] == "off"
