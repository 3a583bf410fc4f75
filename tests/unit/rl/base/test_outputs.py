"""Where a command may write, and what it says of other places."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from rl.base.outputs import check_output, check_output_dir

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
    with pytest.raises(UserError, match=r"output_dir: .*/file is no directory.*output_dir=DIR"):
        check_output_dir(str(tmp_path / "file"), "output_dir")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give output=FILE\.json"):
        check_output(str(tmp_path), "FILE.json")
