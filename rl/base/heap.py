"""Heap of a process that lives for days: large blocks that it frees go back to the system."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_LARGE_BYTES = 128 * 1024  # where glibc starts


def return_large_blocks() -> None:
    """Give each large block pages of its own, for good.

    glibc (2.36) does so from 128 KiB on, but raises that bound, up to 32 MiB, to the size of each
    such block that is freed. Large blocks then lie between small ones, and what is free between
    them is not given back: a driver grew by some 20 MiB in 1,000 steps. A libc without `mallopt`
    keeps its own ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
