"""Runs programs that nobody has read, and says what each was seen to do.

A job is a program and inputs; an outcome is one observation for each input. Expected outputs and
the verdict never come here, nor into the process of the program: `reward.verdict` compares outside.

Covered: endless loops, memory, output and fork storms, processes left behind, one run changing the
result of another. Programs run as a user of their own when this process is root (`own_user`).
Not covered: reading files that this user may read, the network, kernel faults. Linux only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from reward.sandbox_program import EXIT_MEMORY
from reward.sandbox_report import Ending, Observation, observe_stdio, observe_values
from rl.errors import ProjectError, UserError

_log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parent.parent
# No `-E`, which `-I` implies: it would ignore PYTHONHASHSEED. The environment is made here anyway.
_COMMAND = (
    "-s",
    "-P",
    "-c",
    "import sys; sys.path.insert(0, sys.argv[1]); from reward.sandbox_child import main; "
    "sys.path.pop(0); main(sys.argv[2])",
)
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_MIN_MEMORY_BYTES = 64 << 20  # the interpreter itself; below this every program would fail
_START_DEADLINE_S = 30.0
_GRACE_S = 15.0  # beyond the wall clock of a job, for the server's own work
_ATTEMPTS = 2


class SandboxError(ProjectError, RuntimeError):
    """The sandbox itself failed; this says nothing about the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one job may take."""

    wall_s: float = 4.0  # of all its tests together
    cpu_s: int = 10  # of one process
    memory_bytes: int = 1 << 30  # address space of one process
    output_bytes: int = 4 << 20  # of standard output, of reported values, of each written file
    processes: int = 32  # at once, threads included; needs a user of its own

    def __post_init__(self) -> None:
        for name in ("wall_s", "cpu_s", "output_bytes", "processes"):
            if getattr(self, name) <= 0:
                raise UserError(f"limits.{name}={getattr(self, name)}: must be above 0")
        if self.memory_bytes < _MIN_MEMORY_BYTES:
            raise UserError(
                f"limits.memory_bytes={self.memory_bytes}: must be at least {_MIN_MEMORY_BYTES}, "
                "which the interpreter itself takes"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallJob:
    """Call one function, or the method of a class `Solution`, once for each tuple of arguments."""

    code: str
    entry_point: str
    args_N: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioJob:
    """Run the program as a script, in a fresh process for each standard input."""

    code: str
    stdins_N: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snippet:
    """An expression whose value is observed, or a statement that holds unless it asserts."""

    source: str
    is_expression: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SnippetJob:
    """Run `setup` and the program, then each snippet in their namespace."""

    code: str
    setup: str
    snippets_N: tuple[Snippet, ...]


Job = CallJob | StdioJob | SnippetJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one job did: an observation for each input, in order."""

    observations_N: tuple[Observation, ...]
    seconds: float

    @property
    def kind(self) -> Ending:
        """How the first test that did not finish ended; FINISHED when all did."""
        failed = (seen.kind for seen in self.observations_N if seen.kind is not Ending.FINISHED)
        return next(failed, Ending.FINISHED)


class Sandbox:
    """Runs jobs on `workers` fork servers. Thread-safe; use it as a context manager.

    >>> with Sandbox() as sandbox:
    ...     job = CallJob(code="def f(x): return x + 1", entry_point="f", args_N=((1,), (2,)))
    ...     [seen.value for seen in sandbox.run([job])[0].observations_N]
    [2, 3]
    """

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        if not sys.platform.startswith("linux"):
            raise UserError(f"platform={sys.platform}: programs are only run on Linux")
        if workers < 1:
            raise UserError(f"workers={workers}: must be at least 1")
        self._limits = limits or Limits()
        self._scratch = tempfile.TemporaryDirectory(prefix="sandbox-")
        os.chmod(self._scratch.name, 0o711)  # a program must be able to reach its own
        self._servers = [
            _Server(Path(self._scratch.name, str(idx)), self._limits) for idx in range(workers)
        ]
        self._idle: queue.LifoQueue[_Server] = queue.LifoQueue()
        for server in reversed(self._servers):
            self._idle.put(server)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")

    @property
    def own_user(self) -> bool:
        """True when programs run as a user of their own; known once a job has run."""
        return any(server.own_user for server in self._servers)

    def run(self, jobs_N: Sequence[Job]) -> list[Outcome]:
        """Run all jobs; the outcomes are in the same order.

        A job whose server dies is run once more on a new one, then it is a SANDBOX_ERROR.
        """
        return list(self._threads.map(self._run_one, jobs_N))

    def _run_one(self, job: Job) -> Outcome:
        server = self._idle.get()
        try:
            detail = ""
            for _ in range(_ATTEMPTS):
                try:
                    return server.run(job)
                except SandboxError as error:
                    detail = str(error)
                    _log.warning("sandbox: server restarted: %s", detail)
                    server.stop()
            seen = Observation(Ending.SANDBOX_ERROR, detail=detail)
            return Outcome(observations_N=(seen,) * _num_tests(job), seconds=0.0)
        finally:
            self._idle.put(server)

    def close(self) -> None:
        """End the servers; jobs that wait are given up."""
        self._threads.shutdown(cancel_futures=True)
        for server in self._servers:
            server.stop()
        self._scratch.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server:
    """One fork server, started when it is first needed. Not thread-safe."""

    def __init__(self, scratch: Path, limits: Limits) -> None:
        self._scratch = scratch
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self.own_user = False

    def run(self, job: Job) -> Outcome:
        """Run one job. Raises SandboxError when the server dies, hangs or answers nonsense."""
        process = self._process or self._start()
        assert process.stdin is not None
        payload = json.dumps(_wire(job, self._limits)).encode()
        try:
            process.stdin.write(struct.pack(">I", len(payload)) + payload)
            process.stdin.flush()
        except OSError as error:
            raise SandboxError(f"fork server: {error}") from error
        return _outcome(job, self._limits, self._read(process, self._limits.wall_s + _GRACE_S))

    def _start(self) -> subprocess.Popen[bytes]:
        self._scratch.mkdir(mode=0o711, exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, *_COMMAND, str(_ROOT), str(self._scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        self._process = process
        self.own_user = bool(json.loads(self._read(process, _START_DEADLINE_S))["own_user"])
        if not self.own_user:
            _log.warning("sandbox: programs run as this user; run as root for one of their own")
        return process

    def _read(self, process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        assert process.stdout is not None
        fd, deadline = process.stdout.fileno(), time.monotonic() + timeout_s
        (size,) = struct.unpack(">I", _read_exactly(fd, 4, deadline))
        return _read_exactly(fd, size, deadline)

    def stop(self) -> None:
        """End the server and whatever it runs; the next job starts a new one."""
        process, self._process = self._process, None
        if process is None:
            return
        # Its program dies with it (PR_SET_PDEATHSIG), although that has a session of its own.
        process.send_signal(signal.SIGKILL)
        assert process.stdin is not None
        # What a dead server did not read is still buffered, and closing tries to write it.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        with process:  # closes the other pipe and reaps
            pass


def _read_exactly(fd: int, size: int, deadline: float) -> bytes:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    parts: list[bytes] = []
    while size:
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise SandboxError("fork server: no answer before the deadline")
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise SandboxError("fork server: died")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _num_tests(job: Job) -> int:
    match job:
        case CallJob():
            return len(job.args_N)
        case StdioJob():
            return len(job.stdins_N)
        case SnippetJob():
            return len(job.snippets_N)


def _wire(job: Job, limits: Limits) -> dict[str, Any]:
    """Return what the fork server reads; `stdins` has one entry for each process."""
    wire: dict[str, Any] = {"code": job.code, "limits": asdict(limits), "stdins": [""]}
    match job:
        case CallJob():
            wire |= {"kind": "calls", "entry_point": job.entry_point, "args": job.args_N}
        case StdioJob():
            wire |= {"kind": "stdio", "stdins": job.stdins_N}
        case SnippetJob():
            snippets = [(snippet.source, snippet.is_expression) for snippet in job.snippets_N]
            wire |= {"kind": "snippets", "setup": job.setup, "snippets": snippets}
    return wire


def _outcome(job: Job, limits: Limits, answer: bytes) -> Outcome:
    head, _, body = answer.partition(b"\n")
    processes = json.loads(head)
    observations: list[Observation] = []
    for process in processes:
        if not process["ready"]:
            raise SandboxError(f"fork server: a program could not be confined ({process})")
        report, body = body[: process["report_bytes"]], body[process["report_bytes"] :]
        stdout, body = body[: process["stdout_bytes"]], body[process["stdout_bytes"] :]
        ending = _ending(process, limits)
        if isinstance(job, StdioJob):
            observations.append(observe_stdio(ending, int(process["status"]), report, stdout))
        else:
            observations += observe_values(ending, report, _num_tests(job))
    unstarted = Observation(Ending.TIMEOUT, detail="no time left")
    observations += [unstarted] * (_num_tests(job) - len(observations))
    seconds = sum(float(process["seconds"]) for process in processes)
    return Outcome(observations_N=tuple(observations), seconds=seconds)


def _ending(process: Mapping[str, Any], limits: Limits) -> Observation:
    """Return what holds for the tests that the process did not report itself."""
    status = int(process["status"])
    if process["timed_out"]:
        return Observation(Ending.TIMEOUT, detail=f"above {limits.wall_s} s")
    if status == -signal.SIGXCPU:
        return Observation(Ending.TIMEOUT, detail=f"above {limits.cpu_s} s of CPU")
    if max(process["report_bytes"], process["stdout_bytes"]) > limits.output_bytes:
        return Observation(Ending.OUTPUT_LIMIT, detail=f"above {limits.output_bytes} bytes")
    if status == EXIT_MEMORY:
        return Observation(Ending.MEMORY, detail=f"above {limits.memory_bytes} bytes")
    if status < 0:
        return Observation(Ending.RUNTIME_ERROR, detail=f"killed by signal {-status}")
    return Observation(Ending.RUNTIME_ERROR, detail=f"left with exit status {status}")
