"""Control groups: bounds on a whole tree of processes, where they can be set (version 1 or 2).

Resource limits hold for one process each: eight children may take eight times the memory.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_ROOT = Path("/sys/fs/cgroup")
_NAME = "codescaler-sandbox"
_CLOSE_DEADLINE_S = 1.0
_MAX_PROCESSES = 1 << 22  # that Linux can number
_numbers = itertools.count()


class Cgroup:
    """A group of its own for one fork server and all that it runs."""

    def __init__(self, memory: Path, pids: Path) -> None:
        self._memory = memory
        self._pids = pids
        self._limit_file = memory / "memory.max"
        if not self._limit_file.exists():  # version 1
            self._limit_file = memory / "memory.limit_in_bytes"

    @classmethod
    def create(cls) -> Self | None:
        """Make one; None where there are no groups or they cannot be written."""
        name = f"{_NAME}-{os.getpid()}-{next(_numbers)}"
        try:
            parents = _parents()
            for parent in set(parents):
                _remove_stale(parent)
                (parent / name).mkdir()
            memory, pids = (parent / name for parent in parents)
            if not (pids / "pids.max").exists():
                raise OSError(f"{pids} has no pids.max")
            group = cls(memory, pids)
            group.limit_memory(1 << 40)
        except OSError:
            for parent in set(_parents(check=False)):
                with contextlib.suppress(OSError):
                    (parent / name).rmdir()
            return None
        return group

    def entering(self, command: list[str]) -> list[str]:
        """The command line that enters this group and then runs `command`."""
        files = sorted({str(path / "cgroup.procs") for path in (self._memory, self._pids)})
        script = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1"; shift; n=$((n-1)); done; '
        return ["/bin/sh", "-c", f'{script}exec "$@"', "sh", str(len(files)), *files, *command]

    def limit_memory(self, num_bytes: int) -> None:
        """Bound the memory of all processes together."""
        self._limit_file.write_text(str(num_bytes))

    def limit_processes(self, num: int) -> None:
        """Bound the number of processes and threads."""
        (self._pids / "pids.max").write_text(str(min(num, _MAX_PROCESSES)))

    @property
    def num_kills(self) -> int:
        """Processes that the kernel has killed here because memory ran out."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                found = re.search(r"^oom_kill (\d+)$", (self._memory / name).read_text(), re.M)
                return int(found.group(1)) if found else 0
        return 0

    def close(self) -> None:
        """Remove the group; its processes must have ended."""
        deadline = time.monotonic() + _CLOSE_DEADLINE_S
        for path in {self._memory, self._pids}:
            while not _removed(path) and time.monotonic() < deadline:
                time.sleep(0.005)  # the kernel counts a process for a moment after it was reaped


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _parents(*, check: bool = True) -> tuple[Path, Path]:
    """Where groups for memory and for numbers of processes are made: beneath our own."""
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    found: list[Path] = []
    for controller in ("memory", "pids"):
        base = _ROOT / controller if controller in own else _ROOT
        path = base / own.get(controller, own.get("", "/")).lstrip("/")
        found.append(path if path.is_dir() else base)
    memory, pids = found
    if check and memory == pids and (memory / "cgroup.subtree_control").exists():
        (memory / "cgroup.subtree_control").write_text("+memory +pids")
    return memory, pids


def _remove_stale(parent: Path) -> None:
    """Remove the groups of owners that were killed."""
    for path in _groups(parent):
        pid = path.name.removeprefix(f"{_NAME}-").split("-")[0]
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                path.rmdir()


def _groups(parent: Path) -> Iterator[Path]:
    return parent.glob(f"{_NAME}-*")
