"""A scratch directory is removed when its process is dead, and never before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rl.base.scratch import Scratch, dead, one_at_a_time

pytestmark = pytest.mark.unit

KILLED = """
import os, sys
from rl.base.scratch import Scratch
print(Scratch("sandbox").path, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def aged(path: Path) -> Path:
    earlier_s = path.stat().st_mtime - 60
    os.utime(path, (earlier_s, earlier_s))
    return path


def killed(temporary: Path) -> Path:
    """A directory whose process was killed."""
    result = subprocess.run(
        [sys.executable, "-c", KILLED],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    return aged(Path(result.stdout.strip()))


def test_it_is_there_for_a_body_and_gone_after_it(temporary: Path):
    with Scratch("sandbox") as scratch:
        (scratch.path / "file").touch()
        assert scratch.path.parent == temporary
        assert scratch.path.stat().st_mode & 0o077 == 0
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_found_and_what_lives_is_not(temporary: Path):
    left = killed(temporary)
    with Scratch("sandbox") as living:
        aged(living.path)
        assert list(dead()) == list(dead("sandbox")) == [left]
        assert list(dead("engine")) == []


def test_a_directory_that_is_just_being_made_is_left_alone(temporary: Path):
    young = temporary / "codescaler-sandbox-new"
    young.mkdir()
    assert list(dead()) == []
    assert list(dead()) == [] and aged(young).is_dir()
    assert list(dead()) == [young]


def test_one_that_is_removed_while_others_are_looked_at_is_nobodys(temporary: Path):
    first, second = sorted(aged(killed(temporary)) for _ in range(2))
    found: list[Path] = []
    for path in dead():
        found.append(path)
        shutil.rmtree(second)  # by another process, which has just looked too
    assert found == [first]


def test_what_others_made_is_left_alone(temporary: Path, monkeypatch: pytest.MonkeyPatch):
    aged_ones = [temporary / name for name in ("sandbox-x", "codescaler", "other-codescaler-x")]
    for path in aged_ones:
        path.mkdir()
        aged(path)
    (temporary / "codescaler-link").symlink_to(aged_ones[0])
    (temporary / "codescaler-file").touch()
    assert list(dead()) == []
    foreign = temporary / "codescaler-sandbox-foreign"
    foreign.mkdir()
    aged(foreign)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert list(dead()) == []


def test_a_released_one_is_nobodys(temporary: Path):
    scratch = Scratch("ray-1")
    scratch.release()
    assert list(dead()) == []  # too young
    assert list(dead()) == [] and aged(scratch.path).is_dir()
    assert list(dead()) == [scratch.path]


def test_turns_of_one_name_follow_each_other_and_others_do_not_wait(temporary: Path):
    inside: list[str] = []

    def take(*names: str) -> None:
        with one_at_a_time(names):
            inside.append("+".join(names))

    with one_at_a_time(["gpu-0", "gpu-1"]):
        second = threading.Thread(target=take, args=("gpu-1",))
        second.start()
        take("gpu-2")
        second.join(0.2)
        assert inside == ["gpu-2"]
    second.join(10)
    assert inside == ["gpu-2", "gpu-1"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in temporary.iterdir())


def test_the_turn_of_a_killed_process_ends_with_it(temporary: Path):
    script = (
        "import os\nfrom rl.base.scratch import one_at_a_time\n"
        "with one_at_a_time(['gpu-0']):\n    os.kill(os.getpid(), 9)\n"
    )
    env = {**os.environ, "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60, env=env)
    with one_at_a_time(["gpu-0"]):
        assert len(list(temporary.iterdir())) == 1
    assert list(dead()) == []  # no directory of anybody
