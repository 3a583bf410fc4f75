"""The doctor reports what is missing and never fails for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[3]


def test_the_report_is_plain_text_when_piped_and_exits_0() -> None:
    result = subprocess.run(
        [sys.executable, str(TREE / "launch" / "doctor.py")],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    for word in ("torch", "CPU cores", "6379", "sandbox", "quickstart"):
        assert word in result.stdout


def test_it_can_report_on_a_machine_without_ray() -> None:
    without = "import sys; sys.modules['ray'] = None; import launch.doctor"
    done = subprocess.run(
        [sys.executable, "-c", without], cwd=TREE, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
