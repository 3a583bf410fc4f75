"""Settings of a whole process: how long integers may be, and where large blocks of memory lie."""

from __future__ import annotations

import ctypes
import sys

MAX_DIGITS = 100_000
_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_LARGE_BYTES = 128 * 1024  # where glibc starts


def read_big_integers() -> None:
    """Let this process read and write integers of up to MAX_DIGITS digits.

    Python refuses to turn texts of more than 4,300 digits into integers, because that takes
    quadratic time. Tests do hold such integers (factorials, Fibonacci numbers), and published
    graders ran on versions without that limit. It is raised to what still takes a fraction of a
    second.
    """
    known = sys.get_int_max_str_digits()
    if 0 < known < MAX_DIGITS:
        sys.set_int_max_str_digits(MAX_DIGITS)


def return_large_blocks() -> None:
    """Give each large block of memory pages of its own, which its end gives back to the system.

    glibc (2.36) does so from 128 KiB on, but raises that bound, up to 32 MiB, to the size of each
    such block that is freed. Large blocks then lie between small ones, and what is free between
    them is not given back. A libc without `mallopt` keeps its own ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
