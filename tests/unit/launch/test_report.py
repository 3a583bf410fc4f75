"""`launch/report.py`: where the page goes, and what is no run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launch import report
from launch.common.cli import main_simple
from launch.report import ReportArgs
from tests.unit.rl.report.runs import make_run, rows

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py"])


def test_writes_into_the_run_or_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, other = make_run(tmp_path / "run", [rows(1)]), tmp_path / "there/page.html"
    assert main_simple(ReportArgs, report.run, [f"run={directory}"]) == 0
    assert main_simple(ReportArgs, report.run, [f"run={directory}", f"output={other}"]) == 0
    assert capsys.readouterr().out == f"{directory}/report.html\n{other}\n"
    assert other.read_text().startswith("<!doctype html>")


def test_what_is_no_run_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_simple(ReportArgs, report.run, [f"run={tmp_path}"]) == 2
    assert "give the directory of a run" in capsys.readouterr().err
