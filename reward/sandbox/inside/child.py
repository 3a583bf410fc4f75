"""The fork server that runs programs: one process of a program at a time, confined.

Started by `reward.sandbox.pool` with nothing but the standard library loaded. Expected outputs are
never in the memory of this process, because every program inherits a copy of it: asserts are read
by the process that runs them (`reward.sandbox.inside.asserts.strict`), and values are compared
where they are sent to.

Every child has a session of its own, resource limits, closed descriptors, an empty scratch
directory and `no_new_privs`. What else confines it is said by the settings that `main` is given:
a user id (level 1), Landlock and seccomp (2); namespaces (3) or gVisor (4) are around this server.

Frames in both directions are a 4-byte big-endian length and that many bytes: one line of JSON, then
a body. The body of a request is the standard input; that of an answer is what its line says.

One file: the fork server is one state machine, and each step relies on the order of the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import importlib
import json
import math
import os
import random
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from reward.sandbox.inside.asserts.plain import run_plain
from reward.sandbox.inside.asserts.strict import run_asserts
from reward.sandbox.inside.cleanup import empty_directory
from reward.sandbox.inside.cpu_time import STRETCH, Stopwatch
from reward.sandbox.inside.preamble import preamble_builtins
from reward.sandbox.inside.processes import provide_multiprocessing
from reward.sandbox.inside.program import LINK_FDS, REPORT_FD, Job, run_program
from reward.sandbox.inside.script import Script, open_streams, remember_modules, write_source

_READY_FD = LINK_FDS[-1] + 1
_MAX_OPEN_FILES = 64
_STACK_BYTES = 64 << 20
_SWEEP_DEADLINE_S = 5.0
_LEAVE_S = 0.05
_LOOKS = 4  # at the time that a test has taken, within its limit
_SHORTEST_PAUSE_S = 0.005
_UNMAPPED_BYTES = 256 << 20  # address space beyond what is resident, where it is not told
_REHEARSAL_LIMITS = {
    "output_bytes": 1 << 16,
    "memory_bytes": 1 << 28,
    "cpu_s": 10,
    "processes": 8,
}

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 1 << 2

# linux/landlock.h; the same numbers on every architecture.
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read file, read directory
_LANDLOCK_WRITE = 1 << 1  # write file
_LANDLOCK_DEVICES = 1 << 6 | 1 << 11 | 1 << 15  # make character or block device, ioctl
_LANDLOCK_TRUNCATE = 1 << 14
# Rights to files that each version of the interface knows.
_LANDLOCK_FILES = (0, 0x1FFF, 0x3FFF, 0x7FFF, 0x7FFF, 0xFFFF)
_O_PATH = 0o10000000

_STREAM_ERRORS = sys.stdin.errors or "strict"  # what an interpreter does here with other bytes

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How this server confines its children."""

    scratch: str  # a directory that this server may fill
    uid: int | None  # of the programs; the next one is that of the tests
    keep_read: bool  # programs may read what only root may: the interpreter may lie there
    readable: tuple[str, ...] | None  # under Landlock; None leaves it out
    seccomp: str  # a filter in hexadecimal; empty leaves it out
    own_pids: bool  # every process that this server can see is its own


@dataclass(frozen=True)
class _Process:
    """What one child did."""

    ready: bool  # confined as it should be; False says that the program was never run
    status: int  # exit status; negative: killed by that signal
    report: bytes
    stdout: bytes


class ConfinementError(OSError):
    """This machine does not allow what the settings ask for."""


class _ScriptStarted(BaseException):
    """In the process of a script: the frames of the server go before the program comes."""

    def __init__(self, script: Script) -> None:
        self.script = script


def read_frame(fd: int) -> tuple[Job, bytes] | None:
    """Return the next frame, or None at the end of the stream."""
    head = _read_exactly(fd, 4)
    payload = None if head is None else _read_exactly(fd, struct.unpack(">I", head)[0])
    if payload is None:
        return None
    line, _, body = payload.partition(b"\n")
    return json.loads(line), body


def write_frame(fd: int, line: object, *bodies: bytes) -> None:
    """Write one frame."""
    payload = b"".join((json.dumps(line).encode(), b"\n", *bodies))
    view = memoryview(struct.pack(">I", len(payload)) + payload)
    while view:
        view = view[os.write(fd, view) :]


def _read_exactly(fd: int, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _redirect(fds: Sequence[int]) -> None:
    os.setsid()
    for source, target in zip(fds, (0, 1, REPORT_FD, *LINK_FDS, _READY_FD), strict=True):
        if source >= 0:
            os.dup2(source, target)
        else:
            os.close(target)
    os.closerange(_READY_FD + 1, _MAX_OPEN_FILES)
    open_streams(_STREAM_ERRORS)


def _confine_server() -> None:
    """Set, once, what every child inherits."""
    stack_hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = _STACK_BYTES if stack_hard == resource.RLIM_INFINITY else min(_STACK_BYTES, stack_hard)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, stack_hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_OPEN_FILES, _MAX_OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)  # no program may look into this process, or into that of the tests


class _Confinement:
    """What is made once for every child, and put on by each."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ruleset: int | None = None
        if settings.readable is not None:
            self._ruleset = _landlock_ruleset(settings.readable, settings.scratch)
        self._filter = bytes.fromhex(settings.seccomp)

    def put_on(self, limits: dict[str, Any], uid: int | None) -> None:
        """Confine this process for good. Raises OSError where the machine does not allow it."""
        # One byte more than is allowed, so that a full file can be told from an exact fit.
        file_bytes = limits["output_bytes"] + 1
        memory = limits["memory_bytes"] + _address_space()  # what the fixtures take is not its own
        cpu = math.ceil(limits["cpu_s"])
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # of all in the group, the program is what the kernel should kill
        if uid is not None:
            # Counted by user, and root is exempt: without a user of its own this says nothing.
            processes = limits["processes"]
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
            _become(uid, keep_read=self._settings.keep_read)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after `_become`, which clears it
        _prctl(_PR_SET_DUMPABLE, 0)
        if self._ruleset is not None:
            _syscall(_LANDLOCK_RESTRICT_SELF, self._ruleset, 0)
            os.close(self._ruleset)
        if self._filter:
            _set_seccomp(self._filter)


def _address_space() -> int:
    """Bytes that this process has mapped."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:  # under gVisor
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        return resident + _UNMAPPED_BYTES


def _become(uid: int, *, keep_read: bool) -> None:
    """Give up root for `uid`; only the right to read files stays, if asked for.

    The interpreter may be installed where no other user can read its library.
    """
    _prctl(_PR_SET_KEEPCAPS, int(keep_read))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kept = _CAP_DAC_READ_SEARCH if keep_read else 0
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(kept, kept)  # effective, permitted
    if _libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _landlock_ruleset(readable: Sequence[str], scratch: str) -> int:
    """Open files outside of `readable` and `scratch` cannot be had under this; nor can TCP."""
    version = int(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1))
    if version < 1:
        raise ConfinementError(ctypes.get_errno(), "this kernel has no Landlock")
    files = _LANDLOCK_FILES[min(version, len(_LANDLOCK_FILES) - 1)]
    # struct landlock_ruleset_attr: files, then (version 4) TCP, then (version 6) scopes.
    attributes = (ctypes.c_uint64 * 3)(files, 0b11, 0b11)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    for path in readable:
        _landlock_allow(ruleset, path, files & _LANDLOCK_READ)
    for device in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"):
        _landlock_allow(ruleset, device, files & (1 << 2 | _LANDLOCK_WRITE | _LANDLOCK_TRUNCATE))
    _landlock_allow(ruleset, scratch, files & ~_LANDLOCK_DEVICES)
    return ruleset


def _landlock_allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, _O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= 1 << 0 | 1 << 1 | 1 << 2 | _LANDLOCK_TRUNCATE  # what a file can be asked for
        rule = struct.pack("=Qi", rights, fd)  # struct landlock_path_beneath_attr
        _syscall(_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)
    finally:
        os.close(fd)


def _set_seccomp(program: bytes) -> None:
    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    fields = Program(len(program) // 8, program)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(fields), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _syscall(number: int, *args: Any) -> int:  # noqa: ANN401
    result = _libc.syscall(number, *args)
    if result < 0:
        raise ConfinementError(ctypes.get_errno(), f"system call {number}")
    return result


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


@dataclass(frozen=True, kw_only=True)
class _Launch:
    """What one child is to be."""

    run: Callable[[Job], int]
    job: Job
    stdin: bytes
    link: tuple[int, int]  # between program and tests; -1 for none
    uid: int | None
    scratch: str
    receives: int | None = None  # where the job is read from, by the child itself


class _Child:
    """One confined process, and the files that it writes to."""

    def __init__(self, launch: _Launch, confinement: _Confinement) -> None:
        # Files rather than pipes: nobody has to drain them while the program runs, and a child
        # that outlives its parent holds nothing open that we wait for.
        self._files = [os.memfd_create(name) for name in ("stdin", "stdout", "report")]
        self._ready, ready_writer = os.pipe()
        self._limit = int(launch.job["limits"]["output_bytes"]) + 1
        _write_all(self._files[0], launch.stdin)
        os.lseek(self._files[0], 0, os.SEEK_SET)
        self.pid = os.fork()
        if self.pid == 0:
            _enter(launch, (*self._files, *launch.link, ready_writer), confinement)
        os.close(ready_writer)

    @property
    def num_lines(self) -> int:
        """Lines of the report so far."""
        return os.pread(self._files[2], self._limit, 0).count(b"\n")

    @property
    def seconds_since_report(self) -> float:
        """How long ago the report last grew."""
        return max(0.0, time.time() - os.fstat(self._files[2]).st_mtime)

    def finish(self) -> _Process:
        """Kill the process if it still runs, reap it, and return what it did."""
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        ready = bool(os.read(self._ready, 1))
        stdout, report = (os.pread(fd, self._limit, 0) for fd in self._files[1:])
        for fd in (*self._files, self._ready):
            os.close(fd)
        return _Process(ready=ready, status=status, report=report, stdout=stdout)


def _enter(launch: _Launch, fds: Sequence[int], confinement: _Confinement) -> NoReturn:
    """Become the confined process and run; only a script leaves by the way that Python does."""
    script: Script | None = None
    status = 1
    try:
        os.chdir(launch.scratch)
        job = launch.job
        if launch.receives is not None:
            job = {**job, **_received(launch.receives)}
        if job.get("kind") == "stdio":
            script = Script(job)
            write_source(job, launch.scratch, launch.uid)
        confinement.put_on(job["limits"], launch.uid)
        _redirect(fds)
        gc.enable()
        random.seed(0)  # a fork reseeds it: a program that samples without a seed repeats itself
        os.write(_READY_FD, b".")
        os.close(_READY_FD)
        status = launch.run(job) if script is None else 0
    finally:
        if script is None or status != 0:
            os._exit(status)
    raise _ScriptStarted(script)


def _received(fd: int) -> Job:
    frame = read_frame(fd)
    if frame is None:
        raise EOFError
    return frame[0]


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


class _Server:
    """Runs one process of a program at a time, and its tests beside it if they are asserts."""

    def __init__(self, settings: Settings, jobs: int) -> None:
        self._settings = settings
        self._jobs = jobs
        self._scratch = f"{settings.scratch}/cwd"
        self.confinement = _Confinement(settings)

    def run(self, job: Job, stdin: bytes) -> tuple[dict[str, Any], list[_Process]]:
        """Run a program until it ends or its time is over, and leave nothing of it."""
        scratch = self._make_scratch()
        started = time.monotonic()
        program = _Launch(
            run=run_program,
            job=job,
            stdin=stdin,
            link=(-1, -1),
            uid=self._settings.uid,
            scratch=scratch,
        )
        if job["kind"] == "asserts":
            self._load(job["preload"])
            strict = job["mode"] == "strict"
            beside = replace(program, run=run_plain, receives=self._jobs)
            children = (
                self._start_with_tests(program) if strict else [_Child(beside, self.confinement)]
            )
        else:
            children = [_Child(program, self.confinement)]
        out_of, used_s = _watch(children[-1], job)
        if len(children) > 1 and not out_of:
            _ends_within(children[0].pid, _LEAVE_S)  # a program that dies ends its tests first
        processes = [child.finish() for child in children]
        seconds = time.monotonic() - started
        self._sweep()
        return {"out_of": out_of, "used_s": used_s, "seconds": seconds}, processes

    def _load(self, modules: Sequence[str]) -> None:
        """Import what tests will, once: every child then has it."""
        missing = [name for name in modules if name not in sys.modules]
        for name in missing:
            with contextlib.suppress(ImportError):  # the tests will say so themselves
                importlib.import_module(name)
        if missing:
            remember_modules()
            gc.collect()
            gc.freeze()

    def _start_with_tests(self, program: _Launch) -> list[_Child]:
        """Start a program, and its tests in a process that has what the program must not see.

        That process reads the tests itself, from the stream of jobs: were they ever in the memory
        of this one, every program would inherit them.
        """
        tests_read, program_write = os.pipe()
        program_read, tests_write = os.pipe()
        first = replace(program, link=(program_read, program_write))
        second = replace(
            program,
            run=run_asserts,
            job={"limits": program.job["limits"]},
            link=(tests_read, tests_write),
            uid=None if program.uid is None else program.uid + 1,
            receives=self._jobs,
        )
        children = [_Child(first, self.confinement), _Child(second, self.confinement)]
        for fd in (*first.link, *second.link):
            os.close(fd)
        return children

    def _make_scratch(self) -> str:
        """Return an empty directory that belongs to the program's user."""
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self._scratch)
        os.mkdir(self._scratch)
        uid = os.geteuid() if self._settings.uid is None else self._settings.uid
        os.chown(self._scratch, uid, -1)
        os.chmod(self._scratch, 0o755)  # the tests' user starts here too, and may only look
        return self._scratch

    def clean(self) -> None:
        """Remove what the program has written. That takes a while, so the answer goes out first."""
        empty_directory(self._settings.scratch)

    def _sweep(self) -> None:
        """End and reap whatever the program left behind; strays become children of this process."""
        deadline = time.monotonic() + _SWEEP_DEADLINE_S
        while _reap():
            if time.monotonic() > deadline:
                sys.exit("sandbox: a program left processes that cannot be killed")
            if self._settings.own_pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            elif self._settings.uid is None:
                for pid in _children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            else:
                for uid in (self._settings.uid, self._settings.uid + 1):
                    _kill_all_of(uid)
            time.sleep(0.001)


def _kill_all_of(uid: int) -> None:
    """Kill every process of a user at once: no fork can outrun that."""
    if os.fork() == 0:
        try:
            _become(uid, keep_read=False)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)


def _watch(child: _Child, job: Job) -> tuple[str, float]:
    """Wait for the end; return what ran out before it, if anything, and the time that was taken.

    A test has `wall_s` from when the one before it was reported, and all have `total_s`. What ran
    out is the "test", the budget of "all", or the "machine", which let the program have too little.
    """
    limit_s, total_s, last_test = job["wall_s"], job["total_s"], job["num_tests"] - 1
    watch = Stopwatch(child.pid)
    test_s = all_s = 0.0
    num_done = 0
    started = seen_at = time.monotonic()
    while not _ends_within(child.pid, _pause_s(limit_s, limit_s - test_s, total_s - all_s)):
        now, lap_s = time.monotonic(), watch.lap()
        all_s += lap_s
        # The first line says that the program is loaded, which counts into the first test.
        num_lines = min(child.num_lines - 1, last_test)
        if num_lines > num_done:
            num_done = num_lines
            started = now - min(child.seconds_since_report, now - seen_at)
            test_s = lap_s * (now - started) / max(now - seen_at, 1e-9)
        else:
            test_s += lap_s
        seen_at = now
        for word, is_over in (
            ("test", test_s >= limit_s),
            ("all", all_s >= total_s),
            ("machine", now - started >= STRETCH * limit_s),
        ):
            if is_over:
                return word, all_s
    return "", all_s + watch.lap() if all_s else time.monotonic() - seen_at


def _pause_s(limit_s: float, *left_s: float) -> float:
    """How long to wait for an end until the times are looked at again."""
    return max(_SHORTEST_PAUSE_S, min(limit_s / _LOOKS, *left_s))


def _rehearse(settings: Settings, confinement: _Confinement) -> None:
    """Raise ConfinementError unless a child can be confined and is then held."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            confinement.put_on(_REHEARSAL_LIMITS, settings.uid)
            os.write(writer, (_hole(settings) or "held").encode())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the answer
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    answer = os.read(reader, 4096).decode(errors="replace")
    os.close(reader)
    os.waitpid(pid, 0)
    if answer != "held":
        raise ConfinementError(answer or "a confined process died")


def _hole(settings: Settings) -> str | None:
    """What this process can do although it should not, or the other way round."""
    importlib.import_module("wave")  # is the library readable? Nothing has loaded this one
    if settings.seccomp:
        with contextlib.suppress(PermissionError):
            socket.socket().close()
            return "seccomp: a socket could be opened"
    if settings.readable is not None and "/" not in settings.readable:
        with contextlib.suppress(PermissionError):
            os.listdir("/")
            return "Landlock: the root directory could be read"
    return None


def _ends_within(pid: int, seconds: float) -> bool:
    """Wait for the end of a child, without reaping it."""
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return _ends_before(pid, time.monotonic() + seconds)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(max(0, math.ceil(seconds * 1000))))
    finally:
        os.close(fd)


def _ends_before(pid: int, deadline: float) -> bool:
    """The same where the kernel has no descriptors of processes (gVisor)."""
    pause_s = 0.0005
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.02)
    return True


def _reap() -> bool:
    """Reap every child that has ended; return whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Process ids of the living children of this process."""
    children: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                # The name in parentheses may hold anything; state and parent follow its end.
                if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    children.append(int(entry))
    return children


def main(argument: str) -> Script | None:
    """Serve programs from descriptor 0 to descriptor 1 until the stream ends.

    In the process of a script it returns at once, with what is to be run there.

    The first frame sent says that a child can be confined as `Settings`, given as JSON, ask:
    `{"error": null}`, or why not.
    """
    fields = json.loads(argument)
    readable = fields.pop("readable")
    settings = Settings(readable=None if readable is None else tuple(readable), **fields)
    null = os.open(os.devnull, os.O_RDWR)
    # Occupies what a child's descriptors will replace, so that none of ours can lie there.
    jobs, answers = (fcntl.fcntl(fd, fcntl.F_DUPFD, _READY_FD + 1) for fd in (0, 1))
    for fd in range(_READY_FD + 1):
        os.dup2(null, fd)
    try:
        _confine_server()
        server = _Server(settings, jobs)
        _rehearse(settings, server.confinement)
    except OSError as error:
        write_frame(answers, {"error": str(error)})
        return None
    provide_multiprocessing()
    preamble_builtins()
    remember_modules()
    gc.collect()
    gc.disable()  # a collection in a child would copy every page of the server
    gc.freeze()
    write_frame(answers, {"error": None})
    try:
        _serve(server, jobs, answers)
    except _ScriptStarted as started:
        return started.script
    # Here too, because whoever started us may have been killed.
    with contextlib.suppress(OSError):  # another server still has its own directory there
        os.rmdir(settings.scratch)
        os.rmdir(os.path.dirname(settings.scratch))
    return None


def _serve(server: _Server, jobs: int, answers: int) -> None:
    while (frame := read_frame(jobs)) is not None:
        head, processes = server.run(*frame)
        head["processes"] = [
            asdict(p) | {"report": len(p.report), "stdout": len(p.stdout)} for p in processes
        ]
        write_frame(answers, head, *(part for p in processes for part in (p.report, p.stdout)))
        server.clean()
