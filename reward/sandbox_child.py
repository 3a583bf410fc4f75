"""The fork server that runs programs: one job at a time, one confined child per process of the job.

Started by `reward.sandbox` with nothing but the standard library loaded. What a right answer would
have been is never sent here, so no program can look it up or overwrite it.

A child is confined by: a session of its own, resource limits, closed descriptors, an empty scratch
directory, `no_new_privs` and, when the server runs as root, a user id of its own. What is *not*
confined: reading files, the network, and the total size of what is written in many small files.

Frames in both directions are a 4-byte big-endian length and that many bytes. A job is JSON; an
answer is one line of JSON, followed by the report and the standard output of each process.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import ctypes
import fcntl
import functools
import gc
import heapq
import importlib
import itertools
import json
import math
import operator
import os
import random
import re
import resource
import select
import shutil
import signal
import string
import struct
import sys
import time
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from reward.sandbox_program import REPORT_FD, Job, run_program

# Loaded before the first fork, so that the programs that use them do not each pay for it.
PRELOADED = (bisect, collections, functools, heapq, itertools, operator, re, string, typing)

_READY_FD = REPORT_FD + 1
_MAX_OPEN_FILES = 64
_STACK_BYTES = 64 << 20
_SWEEP_DEADLINE_S = 5.0
# Far above the ranges that distributions hand out for rootless containers: killing every process of
# a slot's user must never meet a process that is not ours.
_UID_BASE = 0x70000000

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class _Process:
    """What one child did."""

    ready: bool  # confined as it should be; False says that the program was never run
    status: int  # exit status; negative: killed by that signal
    timed_out: bool
    seconds: float
    report: bytes
    stdout: bytes


def read_frame(fd: int) -> bytes | None:
    """Return the next frame, or None at the end of the stream."""
    head = _read_exactly(fd, 4)
    return None if head is None else _read_exactly(fd, struct.unpack(">I", head)[0])


def write_frame(fd: int, payload: bytes) -> None:
    """Write one frame."""
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


def _child(job: Job, fds: Sequence[int], uid: int | None, scratch: str) -> NoReturn:
    """Become the confined process, run the program, leave without any clean-up."""
    status = 1
    try:
        _redirect(fds)
        os.chdir(scratch)
        _confine(job["limits"], uid)
        gc.enable()
        random.seed(0)  # a fork reseeds it: a program that samples without a seed repeats itself
        os.write(_READY_FD, b".")
        os.close(_READY_FD)
        status = run_program(job)
    finally:
        os._exit(status)


def _redirect(fds: Sequence[int]) -> None:
    os.setsid()
    for source, target in zip(fds, (0, 1, REPORT_FD, _READY_FD), strict=True):
        os.dup2(source, target)
    os.closerange(_READY_FD + 1, _MAX_OPEN_FILES)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115


def _confine_server() -> None:
    """Set, once, what every child inherits."""
    stack_hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = _STACK_BYTES if stack_hard == resource.RLIM_INFINITY else min(_STACK_BYTES, stack_hard)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, stack_hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_OPEN_FILES, _MAX_OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_KEEPCAPS, 1)  # for `_become`, which gives up all but one of them


def _confine(limits: dict[str, Any], uid: int | None) -> None:
    memory, cpu, processes = limits["memory_bytes"], limits["cpu_s"], limits["processes"]
    # One byte more than is allowed, so that a full file can be told from an exact fit.
    file_bytes = limits["output_bytes"] + 1
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if uid is not None:
        # Counted by user, and root is exempt: without a user of its own this would say nothing.
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        _become(uid)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after `_become`, which clears it


def _become(uid: int) -> None:
    """Give up root for `uid`; only the right to read files stays, if it was there.

    The interpreter may be installed where no other user can read its library.
    """
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    for capabilities in (_CAP_DAC_READ_SEARCH, 0):
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)(capabilities, capabilities)  # effective, permitted
        if _libc.capset(header, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


class _Server:
    """Runs the processes of one job at a time."""

    def __init__(self, scratch: str) -> None:
        self._scratch = f"{scratch}/cwd"
        self._uid = _own_uid()

    @property
    def has_own_user(self) -> bool:
        """True when programs run as a user that nothing else on this machine runs as."""
        return self._uid is not None

    def run(self, job: Job) -> list[_Process]:
        """Run the processes of a job within its wall clock; those without any time are missing."""
        deadline = time.monotonic() + job["limits"]["wall_s"]
        processes: list[_Process] = []
        for stdin in job["stdins"]:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                break
            processes.append(self._run_process(job, stdin.encode(errors="replace"), remaining_s))
            if processes[-1].timed_out:
                break
        return processes

    def _run_process(self, job: Job, stdin: bytes, wall_s: float) -> _Process:
        with contextlib.ExitStack() as stack:
            scratch = self._make_scratch()
            stack.callback(_empty, scratch)
            # Files rather than pipes: nobody has to drain them while the program runs, and a child
            # that outlives its parent holds nothing open that we wait for.
            fds = [os.memfd_create(name) for name in ("stdin", "stdout", "report")]
            ready, ready_writer = os.pipe()
            for fd in (*fds, ready):
                stack.callback(os.close, fd)
            os.write(fds[0], stdin)
            os.lseek(fds[0], 0, os.SEEK_SET)
            started = time.monotonic()
            pid = os.fork()
            if pid == 0:
                _child(job, (*fds, ready_writer), self._uid, scratch)
            os.close(ready_writer)
            timed_out = not _ends_within(pid, wall_s)
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            seconds = time.monotonic() - started
            self._sweep()
            limit = job["limits"]["output_bytes"] + 1
            stdout, report = (os.pread(fd, limit, 0) for fd in fds[1:])
            return _Process(
                ready=bool(os.read(ready, 1)),
                status=status,
                timed_out=timed_out,
                seconds=seconds,
                report=report,
                stdout=stdout,
            )

    def _make_scratch(self) -> str:
        """Return an empty directory that belongs to the program's user."""
        with contextlib.suppress(FileExistsError):  # left empty by the process before
            os.mkdir(self._scratch)
        uid = os.geteuid() if self._uid is None else self._uid
        os.chown(self._scratch, uid, -1)
        os.chmod(self._scratch, 0o700)
        return self._scratch

    def _sweep(self) -> None:
        """End and reap whatever the program left behind; strays become children of this process."""
        deadline = time.monotonic() + _SWEEP_DEADLINE_S
        while _reap():
            if time.monotonic() > deadline:
                sys.exit("sandbox: a program left processes that can not be killed")
            if self._uid is None:
                for pid in _children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            elif os.fork() == 0:
                try:
                    _become(self._uid)
                    os.kill(-1, signal.SIGKILL)  # all of that user at once: no fork can outrun it
                finally:
                    os._exit(0)
            time.sleep(0.001)


def _own_uid() -> int | None:
    """User id for the programs of this server, or None when the machine does not allow one."""
    if os.geteuid() != 0:
        return None
    uid = _UID_BASE + os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _become(uid)
            importlib.import_module("fractions")  # is the library readable?
            status = 0
        finally:
            os._exit(status)
    return uid if os.waitpid(pid, 0)[1] == 0 else None


def _ends_within(pid: int, seconds: float) -> bool:
    fd = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(math.ceil(seconds * 1000)))
    finally:
        os.close(fd)


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


def _empty(directory: str) -> None:
    try:
        if os.listdir(directory):
            shutil.rmtree(directory, ignore_errors=True)
    except OSError:  # removed by the program, or unreadable to us
        shutil.rmtree(directory, ignore_errors=True)


def main(scratch: str) -> None:
    """Serve jobs from descriptor 0 to descriptor 1 until the stream ends.

    The first frame sent says what the machine allows: `{"own_user": bool}`.
    """
    null = os.open(os.devnull, os.O_RDWR)
    # Occupies what a child's descriptors will replace, so that none of ours can lie there.
    jobs, answers = (fcntl.fcntl(fd, fcntl.F_DUPFD, _READY_FD + 1) for fd in (0, 1))
    for fd in range(_READY_FD + 1):
        os.dup2(null, fd)
    _confine_server()
    server = _Server(scratch)
    gc.collect()
    gc.disable()  # a collection in a child would copy every page of the server
    gc.freeze()
    write_frame(answers, json.dumps({"own_user": server.has_own_user}).encode())
    while (frame := read_frame(jobs)) is not None:
        processes = server.run(json.loads(frame))
        write_frame(answers, _answer(processes))
    # Here too, because whoever started us may have been killed.
    shutil.rmtree(scratch, ignore_errors=True)
    with contextlib.suppress(OSError):  # another server still has its own directory there
        os.rmdir(os.path.dirname(scratch))


def _answer(processes: list[_Process]) -> bytes:
    header = [
        {
            "ready": process.ready,
            "status": process.status,
            "timed_out": process.timed_out,
            "seconds": process.seconds,
            "report_bytes": len(process.report),
            "stdout_bytes": len(process.stdout),
        }
        for process in processes
    ]
    body = b"".join(process.report + process.stdout for process in processes)
    return json.dumps(header).encode() + b"\n" + body
