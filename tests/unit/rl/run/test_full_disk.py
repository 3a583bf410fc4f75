"""Whichever write, sync or renaming a full disk refuses, nothing torn is ever loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import SaveError
from rl.base.best_effort import BestEffort
from rl.base.files import replace_json, replacing_directory
from rl.base.jsonlines import append_lines, read_lines
from rl.metrics import JsonlSink, read_metrics
from rl.run.checkpoint import commit, complete_checkpoints, find_newest, staging
from rl.run.timeline import Timeline
from rl.types import StepReport
from tests.unit.full_disk import FullDisk

pytestmark = pytest.mark.unit

MAX_OPERATIONS = 200


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


def at_every_moment(
    disk: FullDisk, tmp_path: Path, prepare: Callable[[Path], None], work: Callable[[Path], None]
) -> list[Path]:
    """A directory for each operation of `work`, which has failed in it at that operation."""
    directories: list[Path] = []
    for number in range(MAX_OPERATIONS):
        directory = tmp_path / f"{number:03d}"
        directory.mkdir()
        prepare(directory)
        disk.arm(number)
        try:
            work(directory)
        except (SaveError, OSError):
            assert disk.has_failed
        failed, disk.fails_at = disk.has_failed, None
        if not failed:
            return directories
        directories.append(directory)
    pytest.fail(f"more than {MAX_OPERATIONS} operations")


def save(root: Path, step: int) -> None:
    with staging(root, step) as staged:
        (staged / "hf").mkdir()
        for name in ("state", "hf/weights"):
            with (staged / name).open("w", encoding="ascii") as file:
                file.write(f"{name} of step {step}")
        commit(staged, root, step, keep=1)


def test_a_checkpoint_is_never_torn_and_the_one_before_stays(disk: FullDisk, tmp_path: Path):
    failed = at_every_moment(
        disk, tmp_path, lambda d: save(d / "checkpoints", 1), lambda d: save(d / "checkpoints", 2)
    )
    assert len(failed) >= 15
    for directory in failed:
        root = directory / "checkpoints"
        found = find_newest(root)
        assert found.refused == ()
        assert found.newest is not None
        for name in ("state", "hf/weights"):
            text = (found.newest.directory / name).read_text(encoding="ascii")
            assert text == f"{name} of step {found.newest.step}"
        assert list(root.glob(".*.partial")) == []
        save(root, 3)  # once there is room again
        assert [checkpoint.step for checkpoint in complete_checkpoints(root)] == [3]
        assert [path.name for path in root.iterdir()] == ["step-000003"]


def test_a_model_is_the_old_one_or_the_new_one(disk: FullDisk, tmp_path: Path):
    def write(directory: Path, text: str) -> None:
        with replacing_directory(directory / "hf") as staged:
            (staged / "weights").write_text(text, encoding="ascii")

    failed = at_every_moment(disk, tmp_path, lambda d: write(d, "old"), lambda d: write(d, "new"))
    assert failed
    for directory in failed:
        assert (directory / "hf/weights").read_text(encoding="ascii") in ("old", "new")
        assert not list(directory.glob(".*.partial"))


def test_metrics_that_the_disk_did_not_take_come_with_the_next_step(disk: FullDisk, tmp_path: Path):
    def write(directory: Path) -> None:
        sink = JsonlSink(directory / "metrics.jsonl")
        for step in (1, 2, 3):
            try:
                sink.write(StepReport(step=step, metrics={"reward/mean": step / 2}))
            except OSError:
                continue
        sink.flush()

    failed = at_every_moment(disk, tmp_path, lambda _: None, write)
    assert len(failed) >= 6
    for directory in failed:
        steps = [line["step"] for line in read_metrics(directory / "metrics.jsonl")]
        assert steps == [1, 2, 3]


def test_lines_are_added_whole_or_not_at_all(disk: FullDisk, tmp_path: Path):
    def add(directory: Path) -> None:
        append_lines(directory / "lines.jsonl", [{"n": 2}, {"n": 3}])

    def begin(directory: Path) -> None:
        append_lines(directory / "lines.jsonl", [{"n": 1}])

    for directory in at_every_moment(disk, tmp_path, begin, add):
        lines = (directory / "lines.jsonl").read_bytes()
        if lines == b'{"n": 1}\n':
            add(directory)
        assert [line.value["n"] for line in read_lines(directory / "lines.jsonl")] == [1, 2, 3]


def test_a_json_file_is_the_old_one_or_the_new_one(disk: FullDisk, tmp_path: Path):
    def write(directory: Path, value: int) -> None:
        replace_json(directory / "summary.json", {"value": value})

    for directory in at_every_moment(disk, tmp_path, lambda d: write(d, 1), lambda d: write(d, 2)):
        assert json.loads((directory / "summary.json").read_text())["value"] in (1, 2)


def test_a_timeline_stays_an_array_without_what_the_disk_did_not_take(
    disk: FullDisk, tmp_path: Path
):
    warnings: list[str] = []

    def begin(directory: Path) -> None:
        Timeline(directory / "timeline.json", BestEffort(pytest.fail)).forget_after(0)

    def add(directory: Path) -> None:
        timeline = Timeline(directory / "timeline.json", BestEffort(warnings.append))
        for step in (1, 2, 3):
            with timeline.span("probe", step):
                pass

    failed = at_every_moment(disk, tmp_path, begin, add)
    assert len(failed) == len(warnings) == 3
    assert warnings[0] == (
        "timeline.json is not complete: [Errno 28] No space left on device; the run goes on"
    )
    for missing, directory in enumerate(failed, start=1):
        events = json.loads((directory / "timeline.json").read_text(encoding="ascii"))
        steps = [event["args"]["step"] for event in events if event["ph"] == "X"]
        assert steps == [step for step in (1, 2, 3) if step != missing]
