"""One process at a time writes into a directory, and a dead one writes no more."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import UserError
from rl.run.start.lock import locked

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[5]
HOLDER = """
import sys, time, pathlib
from rl.run.start.lock import locked
with locked(pathlib.Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_one_is_told_who_holds_it_until_the_kernel_gives_it_back(tmp_path: Path) -> None:
    directory = tmp_path / "deep/run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(TREE)},
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match=rf"{directory} is in use by process {process.pid} on "),
            locked(directory, print),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    with locked(directory, print):
        assert f"process {os.getpid()} on" in (directory / ".lock").read_text()
    with locked(directory, print):  # given back at the end
        pass


def test_a_body_that_leaves_nothing_leaves_no_directory_made_for_it(tmp_path: Path) -> None:
    made, there, used = tmp_path / "made", tmp_path / "there", tmp_path / "used"
    there.mkdir()
    for directory in (made, there, used):
        with locked(directory, print):
            if directory == used:
                (used / "step").touch()
    assert {path.name for path in tmp_path.rglob("*")} == {"there", "used", "step", ".lock"}


def test_a_lock_that_was_removed_meanwhile_keeps_others_out_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, whoever held it takes the directory away."""
    directory, flock, ends = tmp_path / "run", fcntl.flock, [True]

    def removed_before(file: int, how: int) -> None:
        if ends and ends.pop():
            (directory / ".lock").unlink()
            directory.rmdir()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with locked(directory, print):
        assert (directory / ".lock").is_file()
        with pytest.raises(UserError, match="is in use"), locked(directory, print):
            pass


def test_a_directory_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"name: .*file/run cannot be written"),
        locked(tmp_path / "file/run", print),
    ):
        pass


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_: object, what: int) -> None:
        if what != fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    said: list[str] = []
    with locked(tmp_path, said.append):
        assert "without locks (No locks available)" in said[0]
