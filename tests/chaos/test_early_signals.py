"""A signal in the first seconds of a run: it ends soon, with one line, and leaves no process.

What it leaves in the temporary directory goes with the next run, so that many leave what one does.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).resolve().parents[2]
NUM_TRIES = int(os.environ.get("CHAOS_TRIES", "10"))
FIRST_S = float(os.environ.get("CHAOS_FIRST_S", "5"))
_DEADLINE_S = 120.0  # on a machine that is busy with other things
_COMMAND = (
    *("experiment=quickstart", "data.num_eval=4", "data.num_train=32", "probe.every=0"),
    *("algorithm.num_steps=1", "algorithm.prompts_per_step=4", "evaluation.num_samples=2"),
)


def _in_session(session: int) -> list[str]:
    """The processes of a session that are still there."""
    found: list[str] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(")")
            fields = rest.split()
            alive = int(fields[3]) == session and fields[0] != "Z"
            if alive:
                found.append(f"{stat.parent.name} {name.partition('(')[2]}")
        except OSError:
            continue
    return found


def _wait_until_it_listens(process: subprocess.Popen[bytes]) -> None:
    """Wait for the first line of the command; Python listens to no SIGTERM before it."""
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        assert process.poll() is None
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)
    pytest.fail("it never listens")


def _try(
    directory: Path, temporary: str, number: signal.Signals, after_s: float
) -> tuple[float, int, str]:
    """Seconds from the signal to the end, exit code and what was said."""
    with (directory / "log").open("w+b") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "launch/train.py"), *_COMMAND],
            cwd=directory,
            env={**os.environ, "TMPDIR": temporary},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _wait_until_it_listens(process)
        time.sleep(after_s)
        sent_s = time.monotonic()
        process.send_signal(number)
        try:
            code = process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            pytest.fail(f"hangs after {number.name} at {after_s:.2f} s")
    took_s = time.monotonic() - sent_s
    deadline = time.monotonic() + 20
    while (left := _in_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"{number.name} at {after_s:.2f} s leaves {left}"
    return took_s, code, (directory / "log").read_text(errors="replace")


@pytest.fixture
def temporary() -> Iterator[str]:
    """A temporary directory for the runs alone; its path is short, because sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="signals-", dir="/tmp") as directory:
        yield directory


@pytest.mark.timeout(NUM_TRIES * 150)
def test_a_signal_at_any_moment_of_the_start_is_one_line(
    tmp_path: Path, temporary: str, record: Callable[[str], None]
) -> None:
    rng = random.Random(0)
    took: list[float] = []
    for attempt in range(NUM_TRIES):
        number = rng.choice((signal.SIGINT, signal.SIGTERM))
        after_s = rng.random() * FIRST_S
        directory = tmp_path / str(attempt)
        directory.mkdir()
        seconds, code, said = _try(directory, temporary, number, after_s)
        took.append(seconds)
        when = f"{number.name} at {after_s:.2f} s: exit {code} after {seconds:.1f} s\n{said}"
        assert code == 1, when
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert errors and errors == said.splitlines()[-len(errors) :], when
        assert len(errors) == 1 and f"stopped by {number.name}" in errors[0], when
        assert "Traceback" not in said and "***" not in said, when
        summary = directory / "outputs/quickstart/run/config.yaml"
        assert not summary.exists() or json.loads(summary.read_text())
    left = [path.name for path in Path(temporary).iterdir()]
    sessions = [p for p in Path(temporary, "ray").glob("session_*") if not p.is_symlink()]
    record(
        f"early signals: {NUM_TRIES} tries, {max(took):.1f} s at most until the end; left: "
        f"{sorted(left)} with {len(sessions)} sessions of Ray"
    )
    assert len(sessions) <= 1
    assert sum(name.startswith("codescaler-") for name in left) <= 1
