"""What is refused before a run starts, the cheapest things first."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.plan.checks import inputs
from conf.errors import UserError
from launch.common.run_checks import check_run_files
from rl.run.checkpoint import commit, staging
from rl.run.directory import RunDirectory
from tests.settings import run_config

pytestmark = pytest.mark.unit


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The checks that load libraries, as they are reached."""
    found: list[str] = []
    monkeypatch.setattr(inputs, "check_files", lambda _: found.append("files"))
    return found


def test_damaged_checkpoints_are_refused_before_a_library_is_loaded(
    tmp_path: Path, checked: list[str]
) -> None:
    place = f"output_dir={tmp_path}"
    root = RunDirectory.of(run_config([place])).checkpoints
    with staging(root, 3) as staged:
        (staged / "engine.json").touch()
        commit(staged, root, 3, keep=2)
    check_run_files(run_config([place, "resume=auto"]))
    assert checked == ["files"]
    (root / "step-000003/engine.json").unlink()
    check_run_files(run_config([place]))
    assert checked == ["files"] * 2
    with pytest.raises(UserError, match=r"step-000003 is refused: engine\.json is missing"):
        check_run_files(run_config([place, "resume=auto"]))
    assert checked == ["files"] * 2
