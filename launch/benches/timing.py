"""Wall-clock and CPU seconds of what runs in this process and in those that it started."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psutil

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One measurement, seconds."""

    wall_s: float
    cpu_s: float  # of this process and everything below it


async def timed(work: Awaitable[T]) -> tuple[T, Timing]:
    """The result of `work`, and what it takes until it is there."""
    cpu_s, started_s = cpu_s_of(os.getpid()), time.perf_counter()
    result = await work
    wall_s = time.perf_counter() - started_s
    return result, Timing(wall_s=wall_s, cpu_s=cpu_s_of(os.getpid()) - cpu_s)


def cpu_s_of(pid: int) -> float:
    """CPU seconds of a process and of what lives below it."""
    total = 0.0
    this = psutil.Process(pid)
    for process in [this, *this.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has ended
            continue
        total += times.user + times.system
    return total


def spread(values: Sequence[float], unit: str = "s") -> str:
    """Median with the smallest and the largest.

    >>> spread([1.0, 3.0, 2.0])
    '2.00 s (1.00 to 3.00)'
    """
    return f"{statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median of the ratios of measurements that were taken in turns, with their range.

    >>> ratio([1.0, 2.0, 1.0], [2.0, 4.0, 4.0])
    '0.50x (0.25 to 0.50)'
    """
    found = [one / other for one, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(found):.2f}x ({min(found):.2f} to {max(found):.2f})"
