"""A page that follows a run neither delays nor ends it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from rl.base.best_effort import BestEffort
from rl.report.live import LiveReport
from rl.report.page import Report
from tests.unit.rl.report.runs import line, make_run, rows

pytestmark = pytest.mark.unit


def test_the_page_is_written_as_the_run_goes_on_and_once_more_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bool] = []
    due = threading.Event()

    def write(_: Report, *, live: bool) -> None:
        written.append(live)
        due.set()

    monkeypatch.setattr(Report, "write", write)
    (tmp_path / "metrics.jsonl").touch()
    with LiveReport(tmp_path, 2, BestEffort(pytest.fail)) as report:
        report.after_step(1)
        report.after_step(2)
        assert due.wait(30)
    assert written == [True, False]


def test_a_step_does_not_wait_for_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    written: list[bool] = []

    def write(_: Report, *, live: bool) -> None:
        assert go_on.wait(30)
        written.append(live)

    monkeypatch.setattr(Report, "write", write)
    (tmp_path / "metrics.jsonl").touch()
    with LiveReport(tmp_path, 1, BestEffort(pytest.fail)) as report:
        for step in range(1, 6):
            report.after_step(step)  # returns, although the first is still being written
        go_on.set()
    assert written == [True, False]


def test_a_report_that_can_not_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_: Report, *, live: bool) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Report, "write", write)
    make_run(tmp_path, [rows(1)])
    said: list[str] = []
    with LiveReport(tmp_path, 1, BestEffort(said.append)) as report:
        for step in range(1, 4):
            report.after_step(step)
    assert said == ["report.html is not complete: no space left; the run goes on"]


def test_a_run_that_ends_before_its_first_step_has_no_report_and_no_warning(tmp_path: Path) -> None:
    with LiveReport(tmp_path, 1, BestEffort(pytest.fail)):
        pass
    assert not (tmp_path / "report.html").exists()


def test_the_error_of_the_run_is_not_hidden(tmp_path: Path) -> None:
    make_run(tmp_path, [rows(1)])
    with (
        pytest.raises(RuntimeError, match="engine"),
        LiveReport(tmp_path, 0, BestEffort(pytest.fail)),
    ):
        raise RuntimeError("engine")
    assert "unfinished, step 1" in (tmp_path / "report.html").read_text()


def test_every_0_writes_at_the_end_only(tmp_path: Path) -> None:
    make_run(tmp_path, [rows(1)])
    with LiveReport(tmp_path, 0, BestEffort(pytest.fail)) as report:
        report.after_step(10)
        assert not (tmp_path / "report.html").exists()
        (tmp_path / "metrics.jsonl").write_text(json.dumps(line(1)) + "\n")
    assert (tmp_path / "report.html").exists()
