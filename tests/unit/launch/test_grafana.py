"""`launch/grafana.py` finds the folder that Grafana reads dashboards from."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.observe.dashboard import FOLDER
from conf.errors import UserError
from launch.grafana import GrafanaArgs, run

pytestmark = pytest.mark.unit


def test_the_command_copies_the_dashboard_into_the_folder_of_the_newest_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UserError, match="is not a directory; start Ray"):
        run(GrafanaArgs())
    folder = tmp_path / "ray/session_latest" / FOLDER
    folder.mkdir(parents=True)
    run(GrafanaArgs())
    assert (folder / "codescaler.json").is_file()
    assert str(folder) in capsys.readouterr().out
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR", str(other))
    run(GrafanaArgs())
    assert (other / "codescaler.json").is_file()
