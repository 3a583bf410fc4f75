"""Sandbox pool: runs untrusted programs, and reports what each was seen to do.

A job is a program and inputs; an outcome is one observation for each input. Expected outputs and
the verdict never enter the process that runs the program: `reward.verify.verdict` compares outside,
and asserts run in a process of their own (`reward.sandbox.inside.asserts.strict`).

How strongly a program is held depends on the machine: see `reward.sandbox.levels`. At every level
above 0 its time, memory, output, files and processes are bounded and nothing of it stays behind.
Linux only.

One file: jobs, workers and the limits that bind them to each other.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from conf.errors import SandboxError, UserError
from reward.sandbox.cgroup import Cgroup
from reward.sandbox.inside.asserts.strict import EXIT_PEER_GONE
from reward.sandbox.inside.cleanup import empty_directory
from reward.sandbox.inside.cpu_time import STRETCH
from reward.sandbox.inside.preamble import PREAMBLE
from reward.sandbox.inside.program import EXIT_FULL, EXIT_MEMORY
from reward.sandbox.levels import (
    ENVIRONMENT,
    SCRATCH_INSIDE,
    Level,
    readable_paths,
    removal_command,
    seccomp_filter,
    server_command,
)
from reward.sandbox.report import Ending, Observation, observe_stdio, observe_values
from rl.base.scratch import Scratch

_log = logging.getLogger(__name__)

_MIN_MEMORY_BYTES = 64 << 20
_START_DEADLINE_S = 30.0
_STOP_DEADLINE_S = 2.0
_GRACE_S = 15.0  # beyond the wall clock of a process, for the server's own work
_BYTES_PER_S = 5e6  # at which a slow machine reads a fixture
_ATTEMPTS = 2
_TESTS_OF_TOTAL = 15  # that `Limits.total_s` is enough for
_SERVER_BYTES = 128 << 20  # memory of a fork server itself
_SERVER_PROCESSES = 8
_GVISOR_BYTES = 512 << 20  # its kernel is a process of ours, with many threads
_GVISOR_PROCESSES = 1024
# Far above the ranges that distributions hand out for rootless containers: killing every process of
# a slot's user must never meet a process that is not ours.
_UID_BASE = 0x70000000
_SLOTS = 64  # of one process, each with a user for programs and one for tests
_slots = itertools.count()
# What takes long to import and tests often do; a fork server keeps what it has imported.
_PRELOADED = ("pytest", "unittest.mock", "unittest", "asyncio", "numpy", "pandas")

Stop = Callable[[int, Observation], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may take."""

    wall_s: float = 4.0  # of one test; loading the program counts into the first
    total_s: float = 60.0  # of up to 15 tests together; more have more
    memory_bytes: int = 1 << 30  # beyond the fixtures; of all its processes where cgroups allow it
    output_bytes: int = 4 << 20  # of standard output, of reported values, of each written file
    scratch_bytes: int = 64 << 20  # of all written files together, from level 3
    processes: int = 32  # at once, threads included; from level 1

    def __post_init__(self) -> None:
        for name in ("wall_s", "total_s", "output_bytes", "scratch_bytes", "processes"):
            if getattr(self, name) <= 0:
                raise UserError(f"limits.{name}={getattr(self, name)}: must be above 0")
        if self.memory_bytes < _MIN_MEMORY_BYTES:
            raise UserError(
                f"limits.memory_bytes={self.memory_bytes}: must be at least {_MIN_MEMORY_BYTES}, "
                "so that ordinary programs can run"
            )

    def of_test(self, time_limit_s: float | None) -> float:
        """Seconds of one test; a problem's own limit comes first."""
        return time_limit_s or self.wall_s

    def of_all(self, num_tests: int, time_limit_s: float | None = None) -> float:
        """Seconds of all tests together: they grow with their number and with their limit."""
        stretch = max(1.0, self.of_test(time_limit_s) / self.wall_s)
        return self.total_s * stretch * max(1.0, num_tests / _TESTS_OF_TOTAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallJob:
    """Call one function, or the method of a class `Solution`, once for each tuple of arguments.

    A function that the program defines itself comes before the method, and the method before what
    it imports. Each case has an instance of its own; what lies outside of it stays from one case to
    the next.
    """

    code: str
    entry_point: str
    args_N: tuple[tuple[Any, ...], ...]
    imports: str = ""  # run before the program, such as `PREAMBLE`; nothing of it is called
    output_bytes: int = 0  # what one value may need beyond `Limits.output_bytes`
    time_limit_s: float | None = None  # of one test, where the problem states its own
    recursion_limit: int | None = None  # None: the interpreter's own


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioJob:
    """Run the program as a script, in a fresh process for each standard input."""

    code: str
    stdins_N: tuple[str, ...]
    imports: str = ""  # run before the program, in its module
    output_bytes: int = 0  # what its output may need beyond `Limits.output_bytes`
    time_limit_s: float | None = None  # of one test, where the problem states its own
    recursion_limit: int | None = None  # None: the interpreter's own


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertJob:
    """Run `setup` and asserts against the program's names.

    `plain` runs them beside an ordinary program, as Python does, and observes UNJUDGED of a program
    that is none; `opposite` does the same with tests that no right program passes, and observes
    True of each that is passed all the same. `bare` runs any program beside them: only what fails
    can be believed. `strict` runs them in a process apart, for any program.
    """

    code: str
    imports: str  # what the program may rely on to be imported
    setup: str
    asserts_N: tuple[str, ...]
    mode: Literal["plain", "opposite", "bare", "strict"] = "plain"
    time_limit_s: float | None = None  # of one test, where the problem states its own


Job = CallJob | StdioJob | AssertJob


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """How programs are to be held."""

    level: Level | None = None  # None takes the highest up to 3; gVisor is slow and only on request
    min_level: Level = Level.KERNEL
    trusted: bool = False  # level 0 is refused without


def reachable_levels() -> dict[Level, str | None]:
    """For each level, None when this machine holds programs with it, else why not."""
    return {level: _why_not(level) for level in Level}


def choose_level(config: Confinement) -> Level:
    """The level that programs will be held with.

    Raises:
        UserError: where this machine reaches no level that `config` allows; it names the reason.
    """
    if config.level is not None:
        candidates = [config.level]
    else:
        candidates = [Level.NAMESPACES, Level.KERNEL, Level.USER, Level.NONE]
    reasons: list[str] = []
    for level in candidates:
        if level < config.min_level:
            break
        if level is Level.NONE and not config.trusted:
            reasons.append("level 0: it does not hold a program; needs sandbox.trusted=true")
            continue
        reason = _why_not(level)
        if reason is None:
            if reasons:
                _log.warning("sandbox: level %d, because of %s", level, "; ".join(reasons))
            return level
        reasons.append(f"level {int(level)}: {reason}")
    shown = "; ".join(reasons) or f"sandbox.level is {candidates[0]:d}"
    raise UserError(
        f"sandbox.min_level={int(config.min_level)}: this machine does not reach it ({shown}). "
        "Install bubblewrap and libseccomp (Debian: apt-get install bubblewrap libseccomp2), run "
        "as root or where user namespaces are allowed, or lower sandbox.min_level"
    )


@functools.cache
def _why_not(level: Level) -> str | None:
    if not sys.platform.startswith("linux"):
        return f"programs are only run on Linux, this is {sys.platform}"
    reason: str | None = None
    with Scratch("sandbox") as scratch:
        scratch.path.chmod(0o711)
        for _ in range(_ATTEMPTS):  # one that was killed says nothing of this machine
            server = _Server(scratch.path, Limits(), level)
            try:
                server.start()
            except (SandboxError, OSError) as error:
                reason = str(error)
            else:
                return None
            finally:
                server.stop()
    return reason


class Sandbox:
    """Runs jobs on `workers` fork servers. Thread-safe; use it as a context manager.

    Raises UserError where the machine does not reach the level that `config` asks for.

    >>> with Sandbox() as sandbox:
    ...     job = CallJob(code="def f(x): return x + 1", entry_point="f", args_N=((1,), (2,)))
    ...     [seen.value for seen in sandbox.run([job])[0].observations_N]
    [2, 3]
    """

    def __init__(
        self,
        workers: int = 1,
        limits: Limits | None = None,
        config: Confinement | None = None,
    ) -> None:
        if workers < 1:
            raise UserError(f"workers={workers}: must be at least 1")
        self.level = choose_level(config or Confinement())
        self._limits = limits or Limits()
        self._scratch = Scratch("sandbox")
        self._scratch.path.chmod(0o711)  # a program must be able to reach its own
        self._servers = [
            _Server(self._scratch.path, self._limits, self.level) for _ in range(workers)
        ]
        self._idle: queue.LifoQueue[_Server] = queue.LifoQueue()
        for server in reversed(self._servers):
            self._idle.put(server)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")

    def run(self, jobs_N: Sequence[Job], stops_N: Sequence[Stop] | None = None) -> list[Outcome]:
        """Run all jobs; the outcomes are in the same order.

        `stops_N[i](test, observation)` says whether what was seen of a test makes the others of
        job i needless; they are SKIPPED then, as far as they have not run already. A job whose
        server dies is run once more on a new one, then it is a SANDBOX_ERROR.
        """
        stops = stops_N or [None] * len(jobs_N)
        return list(self._threads.map(self._run_one, jobs_N, stops))

    def _run_one(self, job: Job, stop: Stop | None) -> Outcome:
        server = self._idle.get()
        num_tests = _num_tests(job)
        budget_s = self._limits.of_all(num_tests, job.time_limit_s)
        seen: list[Observation] = []
        seconds = used_s = 0.0
        try:
            while len(seen) < num_tests:
                if used_s >= budget_s:
                    seen.append(Observation(Ending.TIMEOUT, detail=_over_budget(budget_s)))
                    continue
                first = len(seen)
                lap = self._run_from(server, job, first, budget_s - used_s)
                seconds, used_s = seconds + lap.seconds, used_s + lap.used_s
                seen += lap.observations
                if stop is not None and any(stop(first + i, o) for i, o in enumerate(seen[first:])):
                    seen += [Observation(Ending.SKIPPED)] * (num_tests - len(seen))
                elif seen[-1].kind is Ending.SANDBOX_ERROR:
                    seen += [seen[-1]] * (num_tests - len(seen))
        finally:
            self._idle.put(server)
        return Outcome(observations_N=tuple(seen), seconds=seconds)

    def _run_from(self, server: _Server, job: Job, first: int, remaining_s: float) -> _Lap:
        """Observe one or more tests from `first` on, in one process."""
        detail = ""
        for _ in range(_ATTEMPTS):
            try:
                return server.run(job, first, remaining_s)
            except SandboxError as error:
                detail = str(error)
                _log.warning("sandbox: server restarted: %s", detail)
                server.stop()
        return _Lap([Observation(Ending.SANDBOX_ERROR, detail=detail)])

    def close(self) -> None:
        """End the servers; jobs that wait are given up."""
        self._threads.shutdown(cancel_futures=True)
        for server in self._servers:
            server.stop()
        empty_directory(str(self._scratch.path))  # whatever the programs of a killed server left
        self._scratch.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """What the server says of one process."""

    ready: bool
    status: int
    report: bytes
    stdout: bytes


@dataclass(frozen=True, slots=True)
class _Lap:
    """What one process of a job was seen to do, of one or more tests."""

    observations: list[Observation]
    seconds: float = 0.0  # wall clock
    used_s: float = 0.0  # without what it waited for a core


class _Server:
    """One fork server, started when it is first needed. Not thread-safe."""

    def __init__(self, scratch: Path, limits: Limits, level: Level) -> None:
        slot = next(
            _slots
        )  # its directory's name and its users are no other slot's on this machine
        self._scratch = scratch / f"slot-{os.getpid()}-{slot}"
        self._limits = limits
        self._level = level
        self._uid = _UID_BASE + 2 * (os.getpid() % (1 << 22) * _SLOTS + slot % _SLOTS)
        self._process: subprocess.Popen[bytes] | None = None
        self._cgroup: Cgroup | None = None

    def run(self, job: Job, first: int, remaining_s: float) -> _Lap:
        """Run one process of a job, for its tests from `first` on.

        Raises SandboxError when the server dies, hangs or answers nonsense, or the machine is too
        busy for any verdict.
        """
        try:
            process = self._process or self.start()
        except OSError as error:
            raise SandboxError(f"fork server: {error}") from error
        assert process.stdin is not None
        head, body, tests = _wire(job, first, self._limits)
        num_tests = _num_tests(job) - first if not isinstance(job, StdioJob) else 1
        head |= {"total_s": remaining_s, "num_tests": num_tests}
        budget_s = min(remaining_s, num_tests * head["wall_s"])
        head["limits"]["cpu_s"] = budget_s + 1
        payload = _frame(head, body) + (b"" if tests is None else _frame(tests, b""))
        kills = self._bound(len(payload), head["limits"]["memory_bytes"])
        try:
            process.stdin.write(payload)
            process.stdin.flush()
        except OSError as error:
            raise SandboxError(f"fork server: {error}") from error
        deadline_s = STRETCH * budget_s + _GRACE_S + len(payload) / _BYTES_PER_S
        try:
            answer, processes = _answer(self._read(process, deadline_s))
        except SandboxError:
            if not self._starved_since(kills):
                raise
            # The kernel may kill the server for what a program took; under gVisor it kills all.
            self.stop()
            detail = f"above {head['limits']['memory_bytes']} bytes"
            return _Lap([Observation(Ending.MEMORY, detail=detail)])
        if not all(part.ready for part in processes):
            raise SandboxError("fork server: a program could not be confined")
        starved = self._starved_since(kills)
        total_s = self._limits.of_all(_num_tests(job), job.time_limit_s)
        ending = _out_of_time(answer, head, total_s) or _ending(
            processes, head["limits"], starved=starved
        )
        observations = _observe(job, ending, processes, num_tests)
        return _Lap(observations, float(answer["seconds"]), float(answer["used_s"]))

    def _starved_since(self, kills: int) -> bool:
        return self._cgroup is not None and self._cgroup.num_kills > kills

    def _bound(self, fixture_bytes: int, memory_bytes: int) -> int:
        """Bound the memory of the tree; returns how many processes died of it so far."""
        if self._cgroup is None:
            return 0
        own = _GVISOR_BYTES if self._level is Level.GVISOR else _SERVER_BYTES
        self._cgroup.limit_memory(memory_bytes + own + 8 * fixture_bytes)
        return self._cgroup.num_kills

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server. Raises SandboxError or OSError where this level is out of reach."""
        process = self._spawn()
        frame = self._read(process, _START_DEADLINE_S)
        error = json.loads(frame.partition(b"\n")[0])["error"]
        if error is not None:
            self.stop()
            raise SandboxError(error)
        return process

    def _spawn(self) -> subprocess.Popen[bytes]:
        level = self._level
        root = os.geteuid() == 0
        if level in (Level.USER, Level.KERNEL) and not root:
            raise OSError("only root can give programs a user of their own")
        inside = level >= Level.NAMESPACES
        # Landlock is a matter of this kernel; gVisor has a kernel of its own.
        landlock = level in (Level.KERNEL, Level.NAMESPACES)
        readable = None if not landlock else ["/"] if inside else readable_paths()
        settings = {
            "scratch": SCRATCH_INSIDE if inside else str(self._scratch),
            "uid": self._uid if root and level > Level.NONE else None,
            # From level 2 on Landlock says all the same what can be opened.
            "keep_read": root and not inside and not all(map(_is_public, readable_paths())),
            "readable": readable,
            "seccomp": seccomp_filter().hex() if level >= Level.KERNEL else "",
            "own_pids": inside,
        }
        self._scratch.mkdir(mode=0o711, exist_ok=True)
        command = server_command(
            level, json.dumps(settings), self._limits.scratch_bytes, self._scratch
        )
        self._cgroup = Cgroup.create() if level > Level.NONE else None
        if self._cgroup is not None:
            own = _GVISOR_PROCESSES if level is Level.GVISOR else _SERVER_PROCESSES
            self._cgroup.limit_processes(self._limits.processes + own)
            command = self._cgroup.entering(command)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if inside else None,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        return self._process

    def _read(self, process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        assert process.stdout is not None
        fd, deadline = process.stdout.fileno(), time.monotonic() + timeout_s
        try:
            (size,) = struct.unpack(">I", _read_exactly(fd, 4, deadline))
            return _read_exactly(fd, size, deadline)
        except SandboxError as error:
            raise SandboxError(f"{error}{self._last_words(process)}") from None

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        """What a server that could not even start has said, for people."""
        if process.stderr is None:
            return ""
        process.kill()
        said = process.stderr.read(2000).decode(errors="replace").strip()
        return f" ({said.splitlines()[-1]})" if said else ""

    def stop(self) -> None:
        """End the server and whatever it runs; the next job starts a new one."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        # What a dead server did not read is still buffered, and closing tries to write it.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_DEADLINE_S)  # idle, it ends with its input
        # Its program dies with it (PR_SET_PDEATHSIG), although that has a session of its own.
        process.send_signal(signal.SIGKILL)
        with process:  # closes the other pipes and reaps
            pass
        removal = removal_command(self._level, self._scratch)
        if removal is not None:
            subprocess.run(removal, capture_output=True, check=False)
        if self._cgroup is not None:
            self._cgroup.close()
            self._cgroup = None


def _is_public(path: str) -> bool:
    """Whether any user may reach `path`, or it is not there."""
    parents = [parent for parent in Path(path).parents if parent.exists()]
    return all(parent.stat().st_mode & 0o001 for parent in parents)


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
        case AssertJob():
            return len(job.asserts_N)


def _wire(
    job: Job, first: int, limits: Limits
) -> tuple[dict[str, Any], bytes, dict[str, Any] | None]:
    """What the fork server reads for one process, its standard input, and what the tests read."""
    bounds = {
        "memory_bytes": limits.memory_bytes,
        "output_bytes": limits.output_bytes,
        "processes": limits.processes,
    }
    limit = "the limit of one test" if job.time_limit_s is None else "the problem's time_limit"
    wall_s = limits.of_test(job.time_limit_s)
    head: dict[str, Any] = {"code": job.code, "limits": bounds, "wall_s": wall_s, "limit": limit}
    match job:
        case CallJob():
            bounds["output_bytes"] = max(limits.output_bytes, job.output_bytes)
            built_in = job.imports.startswith(PREAMBLE)  # the server has it ready
            call = {
                "kind": "calls",
                "entry_point": job.entry_point,
                "args": job.args_N[first:],
                "imports": job.imports.removeprefix(PREAMBLE),
                "preamble": built_in,
                "recursion_limit": job.recursion_limit,
            }
            return head | call, b"", None
        case StdioJob():
            bounds["output_bytes"] = max(limits.output_bytes, job.output_bytes)
            script = {"imports": job.imports, "recursion_limit": job.recursion_limit}
            stdin = job.stdins_N[first].encode(errors="replace")
            return head | {"kind": "stdio"} | script, stdin, None
        case AssertJob():
            tests = {"setup": job.setup, "asserts": job.asserts_N[first:]}
            preload = [name for name in _PRELOADED if name in job.setup or name in job.code]
            head |= {"kind": "asserts", "mode": job.mode, "preload": preload}
            return head | {"imports": job.imports}, b"", tests


def _over_budget(total_s: float) -> str:
    return f"above {total_s:g} s, the budget of all tests together"


def _frame(head: dict[str, Any], body: bytes) -> bytes:
    payload = json.dumps(head).encode() + b"\n" + body
    return struct.pack(">I", len(payload)) + payload


def _answer(frame: bytes) -> tuple[dict[str, Any], list[_Process]]:
    line, _, body = frame.partition(b"\n")
    answer = json.loads(line)
    return answer, list(_processes(answer["processes"], body))


def _processes(heads: Sequence[dict[str, Any]], body: bytes) -> Iterator[_Process]:
    for head in heads:
        report, body = body[: head["report"]], body[head["report"] :]
        stdout, body = body[: head["stdout"]], body[head["stdout"] :]
        yield _Process(
            ready=bool(head["ready"]), status=int(head["status"]), report=report, stdout=stdout
        )


def _observe(
    job: Job, ending: Observation, processes: Sequence[_Process], num_tests: int
) -> list[Observation]:
    program, tests = processes[0], processes[-1]
    if isinstance(job, StdioJob):
        return [observe_stdio(ending, program.status, program.report, program.stdout)]
    seen, loaded = observe_values(ending, tests.report, num_tests)
    if isinstance(job, CallJob) and program.status == EXIT_FULL and len(seen) > 1:
        return seen[:-1]  # the report was full: the next process begins with this test
    if not loaded and isinstance(job, AssertJob):
        # The tests never began: the program, which is loaded first, may say why.
        seen, _ = observe_values(seen[0], program.report, num_tests)
    return seen


def _out_of_time(
    answer: dict[str, Any], head: dict[str, Any], total_s: float
) -> Observation | None:
    """What holds for a test whose time ran out, and which time that was; None if none did."""
    match answer["out_of"]:
        case "test":
            return Observation(
                Ending.TIMEOUT, detail=f"above {head['wall_s']:g} s, {head['limit']}"
            )
        case "all":
            return Observation(Ending.TIMEOUT, detail=_over_budget(total_s))
        case "machine":
            shares = f"{answer['used_s']:.1f} s of {answer['seconds']:.1f} s were the program's"
            detail = f"the machine is too busy for a verdict: {shares}"
            return Observation(Ending.SANDBOX_ERROR, detail=detail)
        case _:
            return None


def _ending(
    processes: Sequence[_Process],
    bounds: dict[str, Any],
    *,
    starved: bool,
) -> Observation:
    """What holds for a test that the processes did not report themselves."""
    status = processes[0].status
    if len(processes) == 2 and processes[1].status != EXIT_PEER_GONE:
        status = processes[1].status  # the tests ended first, and the program was killed then
    if status == -signal.SIGXCPU:
        return Observation(Ending.TIMEOUT, detail="above its time of CPU")
    sizes = [len(part) for process in processes for part in (process.report, process.stdout)]
    if max(sizes) > bounds["output_bytes"]:
        return Observation(Ending.OUTPUT_LIMIT, detail=f"above {bounds['output_bytes']} bytes")
    if status == EXIT_MEMORY or (starved and status == -signal.SIGKILL):
        return Observation(Ending.MEMORY, detail=f"above {bounds['memory_bytes']} bytes")
    if status < 0:
        return Observation(Ending.RUNTIME_ERROR, detail=f"killed by signal {-status}")
    return Observation(Ending.RUNTIME_ERROR, detail=f"left with exit status {status}")
