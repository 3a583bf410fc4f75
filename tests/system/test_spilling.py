"""What does not fit in Ray's object store is written to files, and arrives all the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.spilling import ANSWER, PROMPT, SAMPLES, STORE_BYTES

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

ROOT = Path(__file__).resolve().parents[2]


def test_a_minibatch_larger_than_the_object_store_arrives_as_it_was_sent(tmp_path: Path) -> None:
    folder = Path(f"/tmp/rs{os.getpid()}")  # short, as it holds sockets
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.spilling", str(tmp_path)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["arrived"] == found["sent"]
    assert found["sent"][0] == SAMPLES * 4 * (PROMPT + 2 * ANSWER) > 3 * STORE_BYTES
    assert found["spilled"] >= STORE_BYTES  # of 160 MiB that are held at once
    assert found["back"] == [True] * 4
