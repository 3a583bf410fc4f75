"""What is freed between small blocks that stay goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[4]
# Large blocks, with a small one behind each that stays. Before that the bound was raised, as by any
# process that has loaded a model.
FREED = """
import ctypes, sys
from rl.base.process import return_large_blocks
if sys.argv[1] == "returned":
    return_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(30 << 20))
large = []
for _ in range(64):
    large.append(libc.malloc(1 << 20))
    ctypes.memset(large[-1], 1, 1 << 20)
    libc.malloc(64 << 10)
for block in large:
    libc.free(block)
pages = int(open("/proc/self/statm").read().split()[1])
print(pages * 4096 >> 20)
"""


def _resident_mib(how: str) -> int:
    command = [sys.executable, "-c", FREED, how]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_large_blocks_that_are_freed_are_no_longer_resident() -> None:
    assert _resident_mib("kept") - _resident_mib("returned") > 48
