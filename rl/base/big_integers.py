"""Integers of more digits than Python reads by default.

Python refuses to turn texts of more than 4,300 digits into integers, because that takes quadratic
time. Tests do hold such integers (factorials, Fibonacci numbers), and published graders ran on
versions without that limit. The limit is that of a whole process, so it is raised once, to what
still takes a fraction of a second.
"""

from __future__ import annotations

import sys

MAX_DIGITS = 100_000


def read_big_integers() -> None:
    """Let this process read and write integers of up to MAX_DIGITS digits."""
    known = sys.get_int_max_str_digits()
    if 0 < known < MAX_DIGITS:
        sys.set_int_max_str_digits(MAX_DIGITS)
