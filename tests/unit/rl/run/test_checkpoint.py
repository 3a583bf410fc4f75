"""A checkpoint is complete or not there at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.run.checkpoint import commit, complete_checkpoints, find_newest, staging_directory

pytestmark = pytest.mark.unit


def save(root: Path, step: int, content: str = "weights", keep: int = 9) -> Path:
    staged = staging_directory(root, step)
    (staged / "weights").write_text(content, encoding="ascii")
    return commit(staged, root, step, keep).directory


def steps(root: Path) -> list[int]:
    return [checkpoint.step for checkpoint in complete_checkpoints(root)]


def test_a_committed_checkpoint_is_found_with_everything_that_was_staged(tmp_path: Path):
    directory = save(tmp_path, 10)
    (found,) = complete_checkpoints(tmp_path)
    assert (found.step, found.directory) == (10, directory)
    assert (directory / "weights").read_text(encoding="ascii") == "weights"
    assert directory.name == "step-000010"


def test_what_is_only_staged_is_not_found(tmp_path: Path):
    staged = staging_directory(tmp_path, 3)
    (staged / "weights").write_text("half", encoding="ascii")
    (staged / "manifest.json").write_text('{"step": 3}', encoding="ascii")
    assert steps(tmp_path) == []


def test_what_is_no_checkpoint_is_not_looked_at(tmp_path: Path):
    save(tmp_path, 1)
    for name in ("step-2", "step-000002.bak", "step-best"):
        (tmp_path / name).mkdir()
    assert steps(tmp_path) == [1]
    assert find_newest(tmp_path).refused == ()


def test_staging_begins_empty_whatever_a_crash_left_behind(tmp_path: Path):
    (staging_directory(tmp_path, 3) / "half").write_text("x", encoding="ascii")
    assert list(staging_directory(tmp_path, 3).iterdir()) == []


def test_checkpoints_are_listed_oldest_first_by_number_not_by_name(tmp_path: Path):
    for step in (2, 999_999, 1_000_000):
        save(tmp_path, step)
    assert steps(tmp_path) == [2, 999_999, 1_000_000]


def test_a_step_that_is_saved_again_replaces_its_checkpoint(tmp_path: Path):
    save(tmp_path, 5, "old")
    directory = save(tmp_path, 5, "new")
    assert steps(tmp_path) == [5]
    assert (directory / "weights").read_text(encoding="ascii") == "new"


def test_a_run_that_saved_nothing_has_no_checkpoints(tmp_path: Path):
    assert steps(tmp_path / "never") == []


@pytest.mark.parametrize(("keep", "expected"), [(1, [30]), (2, [20, 30]), (9, [10, 20, 30])])
def test_the_newest_are_kept_and_nothing_else_is_touched(tmp_path: Path, keep, expected):
    staged = staging_directory(tmp_path, 40)
    (tmp_path / "notes.txt").write_text("mine", encoding="ascii")
    for step in (10, 20, 30):
        save(tmp_path, step, keep=keep)
    assert steps(tmp_path) == expected
    assert staged.is_dir()
    assert (tmp_path / "notes.txt").is_file()


def test_later_steps_were_refused_by_the_run_that_saves_an_earlier_one(tmp_path: Path):
    for step in (2, 4, 6):
        save(tmp_path, step)
    (tmp_path / "step-000006/weights").unlink()
    newest = find_newest(tmp_path).newest
    assert newest is not None and newest.step == 4
    save(tmp_path, 5, keep=2)
    assert steps(tmp_path) == [4, 5]


def test_what_a_killed_removal_has_left_goes_with_the_next_save(tmp_path: Path):
    save(tmp_path, 1)
    (tmp_path / ".step-000000.old").mkdir()
    save(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"]
