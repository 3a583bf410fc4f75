"""Prompts that a policy of a hub cannot be asked are refused by file and row, before an engine."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from rl.types import Message
from tests.settings import POLICY
from tests.unit.launch.commands import Training

pytestmark = pytest.mark.unit

HUB_ID = "someone/tiny"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped policy as the hub's cache keeps it; nothing else is there, and no hub."""
    cache = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(POLICY, cache / "snapshots" / "0123")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123")
    for name, value in (("HF_HUB_CACHE", str(tmp_path / "hub")), ("HF_HUB_OFFLINE", True)):
        monkeypatch.setattr(constants, name, value)
    return cache


@pytest.fixture
def overrides(tmp_path: Path, cached: Path) -> list[str]:
    """A sweep, whose jobs are checked before the first one, of a policy from the hub."""
    train, held_out = make_prompts("train", 8, 0), make_prompts("eval", 4, 0)
    train[5] = replace(train[5], messages=(Message("user", "x = 1 + 2\n" * 100),))
    write_prompts(tmp_path / "train.parquet", train)
    write_prompts(tmp_path / "eval.parquet", held_out)
    paths = [f"++data.{split}_path={tmp_path / split}.parquet" for split in ("train", "eval")]
    steps = ["++algorithm.prompts_per_step=4", "++probe.every=0"]
    return ["data=parquet", f"model.path={HUB_ID}", "--multirun", "seed=0,1", *paths, *steps]


def test_a_row_above_the_limit_is_named_where_the_tokenizer_is_that_of_a_hub(
    training: Training, overrides: list[str]
):
    text = training.refusal(*overrides)
    assert text.startswith("error: data.train_path: 1 of 8 prompts have more than 128 tokens")
    assert "train.parquet:5 (615)" in text and "raise model.max_prompt_tokens" in text
