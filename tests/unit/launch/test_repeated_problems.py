"""Problems that are asked twice are counted and said before a run; they are no fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launch.common.cli import main
from launch.sweeps.command import run_sweep
from launch.train import run
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("num", [0, 2])
def test_problems_that_are_asked_twice_are_counted(
    tmp_path: Path,
    num: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    train, held_out = make_prompts("train", 8, 0), make_prompts("eval", 4, 0)
    again = [replace(prompt, id=f"again-{prompt.id}") for prompt in train[:num]]
    learned = [replace(prompt, id=f"learned-{prompt.id}") for prompt in train[:num]]
    write_prompts(tmp_path / "train.parquet", [*train, *again])
    write_prompts(tmp_path / "eval.parquet", [*held_out, *learned])
    paths = [f"++data.{split}_path={tmp_path / split}.parquet" for split in ("train", "eval")]
    steps = ["++algorithm.prompts_per_step=4", "++probe.every=0", "dry_run=true"]
    assert main(run, ["data=parquet", *paths, *steps], sweep=run_sweep) == 0
    captured = capsys.readouterr()
    text = " ".join((captured.out + captured.err).split())
    note = f"data.train_path: {num} of {8 + num} problems ask what an earlier one asks"
    warning = f"data.eval_path: {num} of {4 + num} problems are trained on as well"
    assert (note in text) is (warning in text) is (num > 0)
    assert num == 0 or "again-minipy-train-0-0 (as minipy-train-0-0)" in text
