"""What a dead run of ours left goes with the next start; what is not ours, or lives, stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from actors.cluster.leftovers import marked_session, remove_leftovers, temporary_files_in
from rl.base.scratch import Scratch

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    return tmp_path


def session(temporary: Path, *, began_s: float = 0.0, pid: int | None = None) -> Path:
    """A directory of a session of Ray that began so long after now."""
    began = datetime.fromtimestamp(time.time() + began_s).strftime("%Y-%m-%d_%H-%M-%S_%f")
    path = temporary / "ray" / f"session_{began}_{pid or os.getpid()}"
    (path / "logs").mkdir(parents=True)
    (path / "logs/raylet.out").write_bytes(b"x" * (3 << 20))
    return path


def age(temporary: Path, seconds: float = 60.0) -> None:
    """Let everything have been made earlier."""
    for scratch in temporary.glob("codescaler-*"):
        for path in (scratch, scratch / ".lock"):
            earlier_s = path.stat().st_mtime - seconds
            os.utime(path, (earlier_s, earlier_s))


def test_the_session_of_a_run_that_has_ended_goes_with_the_next_start(temporary: Path):
    with marked_session():
        ours = session(temporary, began_s=-59)
    age(temporary)
    before = session(temporary, began_s=-600)  # of the same process, but not after the mark
    other = session(temporary, began_s=-59, pid=os.getpid() + 1)
    assert remove_leftovers() == "removed what earlier runs left here (sessions of Ray: 1; 3 MiB)"
    assert not ours.exists() and before.is_dir() and other.is_dir()
    assert remove_leftovers() == ""
    assert list(temporary.glob("codescaler-*")) == []


def test_the_session_of_a_run_that_lives_stays(temporary: Path):
    with marked_session():
        ours = session(temporary, began_s=-59)
        age(temporary)
        assert remove_leftovers() == ""
        assert ours.is_dir()


def test_scratch_directories_are_counted(temporary: Path):
    for _ in range(2):
        Scratch("sandbox").release()
    age(temporary)
    assert remove_leftovers() == (
        "removed what earlier runs left here (scratch directories: 2; 0 MiB)"
    )


def test_a_session_of_somebody_else_stays_whatever_its_name(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
):
    with marked_session():
        pass
    age(temporary)
    target = temporary / "precious"
    target.mkdir()
    link = session(temporary, began_s=-59)
    name = link.name
    for file in sorted(link.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    link.rmdir()
    (temporary / "ray" / name).symlink_to(target)
    remove_leftovers()
    assert target.is_dir()


def mktemp(*variables: str) -> list[str]:
    """Where a child has its temporary files, and what it knows of some variables."""
    code = f"import os, tempfile; print(tempfile.mkdtemp(), *map(os.environ.get, {variables}))"
    return subprocess.check_output([sys.executable, "-c", code], text=True).split()


def test_temporary_files_of_the_processes_of_a_run_go_with_it(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with marked_session() as own:
        with temporary_files_in(own):
            made, ray, compiled = mktemp("RAY_TMPDIR", "TORCHINDUCTOR_CACHE_DIR")
        assert own in Path(made).parents
        assert ray == str(temporary)  # its sessions are looked for there
        assert Path(compiled).parent == temporary
        assert not {"TMPDIR", "RAY_TMPDIR", "TORCHINDUCTOR_CACHE_DIR"} & os.environ.keys()
    assert not own.exists()
    assert [path.name for path in own.parent.iterdir()] == [".lock"]


def test_temporary_files_of_a_run_that_was_killed_go_with_the_next_start(temporary: Path):
    with marked_session() as own:
        session(temporary, began_s=-59)
    own.mkdir()
    (own / "left").write_bytes(b"x" * (2 << 20))
    age(temporary)
    assert remove_leftovers() == "removed what earlier runs left here (sessions of Ray: 1; 5 MiB)"
    assert list(temporary.glob("codescaler-*")) == []


def test_what_the_user_has_set_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch):
    wanted = {"TMPDIR": "/a", "RAY_TMPDIR": "/b", "TORCHINDUCTOR_CACHE_DIR": "/c"}
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    with marked_session() as own, temporary_files_in(own):
        _, ray, compiled = mktemp("RAY_TMPDIR", "TORCHINDUCTOR_CACHE_DIR")
        assert (ray, compiled) == ("/b", "/c")
    assert {name: os.environ[name] for name in wanted} == wanted
