"""How long a program took of the time that it could have had.

On a machine with other work, a process waits for a core. That is no fault of a program: its time is
the wall clock without what its processes waited, and at least what they computed. The kernel tells
both (`/proc/PID/task/TID/schedstat`). Where it does not, as under gVisor, time is what the process
computed, or a share of the wall clock if that is more. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import time

STRETCH = 30.0  # the wall clock that a test may take, as a multiple of its time
_UNKNOWN_STRETCH = 4.0  # of the wall clock, where nobody says who waited
_CPU_CLOCK = 2  # CPUCLOCK_SCHED of the kernel
_NS = 1e-9


class Stopwatch:
    """Measures the descendants of this process from now on; `lap` may be called at any time."""

    def __init__(self, main_pid: int) -> None:
        self._main_pid = main_pid
        self._cores = len(os.sched_getaffinity(0))
        self._wall = time.monotonic()
        self._seen: dict[int, tuple[int, int]] = {}  # what each thread had computed, and waited
        self._cpu_s = 0.0

    def lap(self) -> float:
        """Return how much time of their own they took since the last lap."""
        now = time.monotonic()
        wall_s, self._wall = now - self._wall, now
        computed_ns = waited_ns = 0
        known = False
        for pid in _descendants(os.getpid()) or [self._main_pid]:
            for thread, computed, waited in _threads(pid):
                known = True
                before = self._seen.get(thread, (0, 0))
                computed_ns += max(0, computed - before[0])
                waited_ns += max(0, waited - before[1])
                self._seen[thread] = (computed, waited)
        if known:
            return min(wall_s, max(wall_s - waited_ns * _NS, computed_ns * _NS / self._cores))
        cpu_s = _cpu_seconds(self._main_pid)
        cpu_s, self._cpu_s = cpu_s - self._cpu_s, cpu_s
        return min(wall_s, max(cpu_s, wall_s / _UNKNOWN_STRETCH))


def _threads(pid: int) -> list[tuple[int, int, int]]:
    """Id, nanoseconds computed and nanoseconds waited of each thread of a process."""
    threads: list[tuple[int, int, int]] = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError, ValueError):
                with open(f"/proc/{pid}/task/{name}/schedstat", "rb") as file:
                    computed, waited, _ = map(int, file.read().split())
                if _steps_back(pid, name):
                    waited = 0
                threads.append((int(name), computed, waited))
    return threads


def _steps_back(pid: int, thread: str) -> bool:
    """Whether a thread has asked to be served after others: then it waits of its own will."""
    with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[16]) > os.nice(0) or int(fields[38]) not in (0, 1, 2)  # nice, policy


def _descendants(ancestor: int) -> list[int]:
    """Process ids below `ancestor`."""
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                    # The name in parentheses may hold anything; the parent follows its end.
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found = {ancestor}
    size = 0
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return sorted(found - {ancestor})


def _cpu_seconds(pid: int) -> float:
    """What a process has computed; 0 where that cannot be had."""
    try:
        return time.clock_gettime(~pid << 3 | _CPU_CLOCK)
    except OSError:
        return 0.0
