"""What is told of a run is lost where nobody takes it, and the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

TELLS = """
import os, sys
from rl.base.console import Console
console = Console()
with console.steps(3):
    for number in range(3):
        console.say(f"step {number} " + "x" * 5000)
        console.table("figures", [("pass@1", "0.9", "of it")])
os.write(2, b"went on")
"""


def ended(stdout: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", TELLS], stdout=stdout, stderr=subprocess.PIPE, check=False
    )


def test_a_log_on_a_full_disk_ends_no_run():
    with Path("/dev/full").open("wb") as full:
        assert b"went on" in ended(full.fileno()).stderr


def test_a_reader_that_is_gone_ends_no_run_and_is_no_failure():
    reader, writer = os.pipe()
    os.close(reader)
    found = ended(writer)
    os.close(writer)
    assert (found.returncode, found.stderr) == (0, b"went on")


def test_a_reader_that_is_there_gets_every_line():
    found = subprocess.run([sys.executable, "-c", TELLS], capture_output=True, check=True)
    lines = found.stdout.decode().splitlines()
    assert [line[:6] for line in lines if line.startswith("step")] == ["step 0", "step 1", "step 2"]
