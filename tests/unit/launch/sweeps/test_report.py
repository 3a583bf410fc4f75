"""The table of a sweep: a row for each job, means over seeds."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from launch.sweeps.report import Figures, Row, draw, groups_of, markdown, read_figures, write_report
from tests.unit.launch.sweeps.sweep_jobs import write_summary

pytestmark = pytest.mark.unit


def row(number: int, swept: dict[str, str], final: float | None, directory: str = "") -> Row:
    return Row(
        number=number,
        swept=swept,
        directory=directory,
        status="failed" if final is None else "done",
        error="" if final is not None else "exit code 1: it died",
        figures=Figures()
        if final is None
        else Figures(base=0.5, final=final, best_of=0.9, num_samples=8, wall_s=60.0),
    )


ROWS = [
    row(0, {"seed": "0", "policy.lr": "1e-05"}, 0.70),
    row(1, {"seed": "0", "policy.lr": "0.0001"}, 0.80),
    row(2, {"seed": "1", "policy.lr": "1e-05"}, 0.76),
    row(3, {"seed": "1", "policy.lr": "0.0001"}, None),
    row(4, {"seed": "2", "policy.lr": "1e-05"}, 0.70),
]


def test_means_and_standard_deviations_are_over_the_seeds_of_equal_settings() -> None:
    slow, fast = groups_of(ROWS)
    assert (slow.swept, slow.seeds) == ({"policy.lr": "1e-05"}, ("0", "1", "2"))
    values = [0.70, 0.76, 0.70]
    assert slow.final == pytest.approx((sum(values) / 3, statistics.stdev(values)))
    assert slow.base == (0.5, 0.0)
    assert (fast.seeds, fast.final) == (("0",), (0.8, 0.0))  # the failed one does not count


def test_without_seeds_there_is_nothing_to_average() -> None:
    assert groups_of([row(0, {"policy.lr": "1"}, 0.5)]) == []


def test_the_table_has_a_row_for_each_job_and_says_what_failed() -> None:
    text = markdown(ROWS, groups_of(ROWS))
    lines = text.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == [
        *("job", "seed", "policy.lr", "status", "base pass@1", "final pass@1", "bon8", "wall")
    ]
    assert cells[2] == ["0", "0", "1e-05", "done", "0.500", "0.700", "0.900", "60 s"]
    assert cells[5] == ["3", "1", "0.0001", "failed", "-", "-", "-", "-"]
    assert ["1e-05", "3", "0.500 +- 0.000", "0.720 +- 0.035", "0.900 +- 0.000"] in cells
    assert "- job 3: exit code 1: it died" in lines


def test_the_report_is_written_as_json_markdown_and_curves(tmp_path: Path) -> None:
    run = tmp_path / "0-seed_0"
    write_summary(run, 0.75)
    steps = [{"step": 1, "reward/mean": 1.0, "eval/pass@1": 0.6}, {"step": 2, "reward/mean": 1.2}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    rows = [row(0, {"seed": "0"}, 0.75, str(run)), row(1, {"seed": "1"}, None)]
    text = write_report(tmp_path, rows)
    draw(tmp_path, rows)
    assert (tmp_path / "sweep.md").read_text() == text
    document = json.loads((tmp_path / "sweep.json").read_text())
    assert [job["figures"]["final"] for job in document["jobs"]] == [0.75, None]
    assert document["groups"][0]["final"] == [0.75, 0.0]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_a_summary_has_no_figures(tmp_path: Path) -> None:
    assert read_figures(tmp_path) == Figures()
    write_summary(tmp_path, 0.75)
    found = read_figures(tmp_path)
    assert (found.final, found.best_of, found.num_samples) == (0.75, 0.9, 8)
