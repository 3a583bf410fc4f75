"""Jobs of a sweep on this machine: one process after the other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from conf.errors import last_error
from conf.schema import Config

OUTPUT_FILE = "output.log"
_READ_DEADLINE_S = 10.0
_REMEMBERED_LINES = 50


class LocalProcess:
    """A run in a process of its own; what it writes is shown and kept in `output.log`."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._tail: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        # A session of its own: Ctrl-C reaches the sweep alone, which then stops the job once.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._reader.join(_READ_DEADLINE_S)  # what it wrote last is still in the pipe
        return code

    def stop(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to its whole session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def last_line(self) -> str:
        """The last line of its errors, or else of its output."""
        return last_error(self._tail)

    def _read(self, log: Path) -> None:
        assert self._process.stdout is not None
        with log.open("a", encoding="utf-8") as file, self._process.stdout as lines:
            for line in lines:
                self._tail.append(line)
                file.write(line)
                file.flush()
                sys.stdout.write(line)
                sys.stdout.flush()


class LocalJobs:
    """Runs each job with `script`, by the interpreter of this process; one at a time."""

    def __init__(self, script: Path) -> None:
        self._script = script

    def fits(self, config: Config, running: Sequence[Config]) -> bool:
        """One job has the machine: each starts a Ray cluster of its own."""
        return not running

    def start(self, overrides: Sequence[str], directory: Path) -> LocalProcess:
        """Start a run."""
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(self._script), *overrides]
        return LocalProcess(command, directory / OUTPUT_FILE)
