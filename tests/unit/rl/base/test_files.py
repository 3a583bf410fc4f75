"""A file is there whole or as it was before, whatever happens while it is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rl.base.files import replace_directory, replace_file, replace_json, replacing

pytestmark = pytest.mark.unit


def test_a_file_is_made_with_its_directory_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "summary.json"
    replace_json(path, {"\u00e9": [1.5, None]})
    assert path.read_text() == '{\n  "\\u00e9": [\n    1.5,\n    null\n  ]\n}\n'
    assert list(path.parent.iterdir()) == [path]


def test_a_failing_write_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    replace_file(path, "old")
    with pytest.raises(OSError, match="no space"), replacing(path) as staged:
        staged.write_text("half of the n")
        raise OSError("no space")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_is_no_json_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    replace_json(path, {"wall_s": 1.0})
    with pytest.raises(TypeError):
        replace_json(path, {"wall_s": 2.0, "versions": object()})
    assert json.loads(path.read_text()) == {"wall_s": 1.0}


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    replace_file(path, "old")
    with replacing(path) as staged:
        staged.write_text("new, ")
        assert path.read_text() == "old"
        with staged.open("a") as file:
            file.write("whole")
    assert path.read_text() == "new, whole"


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    (tmp_path / "summary.json.partial").write_text("torn and rather long")
    replace_file(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_takes_the_place_of_another_as_a_whole(tmp_path: Path) -> None:
    staged, target = tmp_path / "staged", tmp_path / "hf"
    for directory, name in ((staged, "new"), (target, "old")):
        directory.mkdir()
        (directory / name).touch()
    replace_directory(staged, target)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged, target = tmp_path / "staged", tmp_path / "hf"
    staged.mkdir()
    target.mkdir()
    (target / "old").touch()
    rename = os.rename

    def fail(source: Path, goal: Path) -> None:
        if source == staged:
            raise OSError("no space")
        rename(source, goal)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="no space"):
        replace_directory(staged, target)
    assert (target / "old").is_file()
