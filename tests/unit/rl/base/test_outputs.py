"""Where a command may write, and what it says of other places."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conf.errors import UserError
from rl.base.outputs import check_new_dir, check_output, check_output_dir

pytestmark = pytest.mark.unit


def test_places_that_do_not_exist_yet_are_good(tmp_path: Path) -> None:
    new = tmp_path / "new/deep"
    assert check_output(f"{new}/page.html", "FILE") == new / "page.html"
    assert check_output_dir(str(new)) == new
    assert not new.parent.exists()


def test_a_file_in_the_way_is_named_with_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for check in (lambda path: check_output(path, "FILE"), check_output_dir):
        with pytest.raises(UserError, match=r"output: .*file/out.* cannot be written.*output="):
            check(str(tmp_path / "file/out"))
    with pytest.raises(UserError, match=r"output_dir: .*/file is not a directory.*output_dir=DIR"):
        check_output_dir(str(tmp_path / "file"), "output_dir")


@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/run", "/sys/x"])
def test_a_file_system_that_takes_no_files_is_named(place: str) -> None:
    for check in (lambda path: check_output(f"{path}/page.html", "FILE"), check_output_dir):
        with pytest.raises(UserError, match=f"output: {place}.* cannot be .*takes no files"):
            check(place)


def test_a_name_that_is_too_long_is_shown_in_part(tmp_path: Path) -> None:
    long = "x" * 300
    check_output_dir(str(tmp_path / long[:255]))
    for place in (long, f"new/{long}", f"{long}/new", "é" * 128):
        with pytest.raises(UserError, match=r"\.\.\. is longer than the 255 bytes of a name"):
            check_output_dir(str(tmp_path / place))
        with pytest.raises(UserError, match="is longer than the 255 bytes of a name"):
            check_output(str(tmp_path / place), "FILE")


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output_dir(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_no_name_is_not_the_current_directory() -> None:
    with pytest.raises(UserError, match=r"^output_dir: has no value; give output_dir=DIR$"):
        check_output_dir("", "output_dir")


def test_what_a_file_would_take_the_place_of_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", str(tmp_path / "pipe")):
        with pytest.raises(UserError, match=rf"output: {path} cannot be written .it is a device"):
            check_output(path, "FILE")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give output=FILE\.json"):
        check_output(str(tmp_path), "FILE.json")


def test_a_directory_that_is_made_anew_may_exist_but_holds_nothing(tmp_path: Path) -> None:
    assert check_new_dir(str(tmp_path)) == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^output: .* is not empty; give another output=DIR"):
        check_new_dir(str(tmp_path))
