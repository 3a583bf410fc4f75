"""An export takes nobody's models away."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.stages.export import export_models
from rl.base.console import Console
from tests.settings import POLICY, REWARD_MODEL, shipped_config

pytestmark = pytest.mark.unit


def test_models_that_were_there_already_are_kept(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/mine.safetensors").touch()
    export_models(POLICY, REWARD_MODEL, tmp_path, shipped_config().reward, 0, console=Console())
    (aside,) = tmp_path.glob("policy.old-*")
    assert [path.name for path in aside.iterdir()] == ["mine.safetensors"]
    assert (tmp_path / "policy/model.safetensors").is_file()
    assert not (tmp_path / "policy/mine.safetensors").exists()
    assert (tmp_path / "rm/golden_scores.json").is_file() and not list(tmp_path.glob("rm.old-*"))


def test_a_card_says_what_its_model_learned_from(tmp_path: Path) -> None:
    export_models(POLICY, REWARD_MODEL, tmp_path, shipped_config().reward, 0, console=Console())
    assert "| labels | given answers, " in (tmp_path / "policy/README.md").read_text()
    assert "| labels | pairs of programs that gold " in (tmp_path / "rm/README.md").read_text()
