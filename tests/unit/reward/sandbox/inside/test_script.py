"""A script in the sandbox does what `python solution.py < in > out` does, byte for byte."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reward.sandbox.levels import ENVIRONMENT, Level
from reward.sandbox.pool import Confinement, Limits, Sandbox, StdioJob, reachable_levels
from reward.sandbox.report import Ending
from tests.unit.reward.scripts import SCRIPTS, STDIN

pytestmark = pytest.mark.unit

_LEVELS = [Level.KERNEL, Level.NAMESPACES]
_LIMITS = Limits(wall_s=30.0)


@pytest.fixture(scope="module", params=_LEVELS, ids=lambda level: f"level{int(level)}")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    level: Level = request.param
    why = reachable_levels()[level]
    if why is not None:
        pytest.skip(why)
    with Sandbox(limits=_LIMITS, config=Confinement(level=level)) as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_does_what_it_does_in_plain_python(
    sandbox: Sandbox, name: str, tmp_path: Path
) -> None:
    status, stdout = _plain(SCRIPTS[name], tmp_path)
    job = StdioJob(code=SCRIPTS[name], stdins_N=(STDIN,))
    (seen,) = sandbox.run([job])[0].observations_N
    if status != 0:
        assert (seen.kind, seen.value) == (Ending.RUNTIME_ERROR, None)
    else:
        assert (seen.kind, seen.detail) == (Ending.FINISHED, "")
        assert seen.value == stdout.decode(errors="replace")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import multiprocessing as m\nm.Manager()", "needs sockets"),
        ("import multiprocessing as m\nm.get_context('spawn').Lock()", "processes that are forked"),
        (
            "from multiprocessing.shared_memory import SharedMemory\nSharedMemory('a', True, 9)",
            "PermissionError",
        ),
        ("import socket\nsocket.socket()", "PermissionError"),
    ],
)
def test_what_a_script_cannot_have_is_said(sandbox: Sandbox, code: str, said: str) -> None:
    (seen,) = sandbox.run([StdioJob(code=code, stdins_N=("",))])[0].observations_N
    assert seen.kind is Ending.RUNTIME_ERROR
    assert said in seen.detail


def _plain(code: str, directory: Path) -> tuple[int, bytes]:
    """Exit status and output of a real interpreter."""
    (directory / "in").write_bytes(STDIN.encode())
    work = directory / "work"
    work.mkdir()
    (work / "solution.py").write_bytes(code.encode())
    with (directory / "in").open("rb") as stdin, (directory / "out").open("wb") as stdout:
        process = subprocess.run(
            [sys.executable, "solution.py"],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            cwd=work,
            env=ENVIRONMENT,
            timeout=60,
            check=False,
        )
    return process.returncode, (directory / "out").read_bytes()
