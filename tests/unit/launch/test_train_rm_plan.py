"""`launch/train_rm.py dry_run=true` shows layout and memory of the ranks, and starts nothing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from conf.commands.train_rm import TrainRmArgs
from launch import train_rm
from launch.common.cli import main_simple

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[3]
BASE = "Skywork/Skywork-Reward-V2-Qwen3-8B"
OF_8B = [f"model={BASE}", "data=pairs", "placement=one_node", "max_tokens=4096", "dry_run=true"]


def planned(tmp_path: Path, *overrides: str) -> int:
    return main_simple(TrainRmArgs, train_rm.run, [f"output={tmp_path}/rm", *OF_8B, *overrides])


def test_an_8b_reward_model_is_trained_on_eight_gpus_of_80_gb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planned(tmp_path, "gradient_checkpointing=true") == 0
    text = capsys.readouterr().out
    assert [f"gpu {i}  policy-{i}" in text for i in range(8)] == [True] * 8
    assert f"memory of one rank that trains {BASE} in bfloat16" in text
    assert re.search(r"parameters 1\.8 \+ gradients 3\.5 \+ AdamW 10\.6 .*lr 1\.\de-06", text, re.S)
    assert "all of it fits" in text and "nothing was started" in text
    assert not (tmp_path / "rm").exists()


def test_what_would_not_fit_is_refused_with_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planned(tmp_path, "microbatch_tokens=65536") == 2
    found = capsys.readouterr()
    assert "would not fit" in found.out
    assert "policy-0 would need" in found.err and "gradient_checkpointing=true" in found.err


def test_the_command_of_the_recipe_is_planned_as_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (TREE / "docs/recipe.md").read_text().replace("\\\n", " ")
    found = re.findall(r"^python launch/train_rm.py (.*)$", text, re.MULTILINE)
    first, second = map(shlex.split, found)
    assert first == [*second, "dry_run=true"] and f"model={BASE}" in first
    monkeypatch.chdir(tmp_path)
    assert main_simple(TrainRmArgs, train_rm.run, first) == 0
    text = capsys.readouterr().out
    assert f"memory of one rank that trains {BASE} in bfloat16" in text
    assert "gpu 7  policy-7" in text and "all of it fits" in text
