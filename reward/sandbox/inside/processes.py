"""What `multiprocessing` needs of `/dev/shm`, where a program may write nothing, by other means.

Semaphores are unnamed, in memory that a process shares with those that it forks: all that pools,
queues and locks need. Other start methods cannot share them, and say so. Shared values lie in
anonymous files. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import importlib.machinery
import mmap
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NoReturn

_BYTES = 64  # more than a `sem_t` takes anywhere
_RECURSIVE = 0
_extension: Any = importlib.import_module("_multiprocessing")
_SEM_VALUE_MAX: int = _extension.SemLock.SEM_VALUE_MAX
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class SemLock:
    """What `_multiprocessing.SemLock` is, but for its name: it has none."""

    SEM_VALUE_MAX = _SEM_VALUE_MAX

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
        if not unlink:
            raise OSError(
                errno.ENOSYS, "only processes that are forked can share semaphores in the sandbox"
            )
        self.kind = kind
        self.maxvalue = maxvalue
        self.name = None
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._semaphore = (ctypes.c_char * _BYTES).from_buffer(self._memory)
        self.handle = ctypes.addressof(self._semaphore)
        self._held = 0  # by the thread `_owner` of this process
        self._owner = 0
        if _libc.sem_init(self._semaphore, 1, ctypes.c_uint(value)) != 0:
            raise OSError(ctypes.get_errno(), "sem_init")

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take one; False when there was none in time."""
        if self.kind == _RECURSIVE and self._is_mine():
            self._held += 1
            return True
        if not self._wait(block, timeout):
            return False
        self._held += 1
        self._owner = threading.get_ident()
        return True

    def _wait(self, block: bool, timeout: float | None) -> bool:
        end = None if timeout is None else time.time() + max(0.0, timeout)
        while True:
            if not block:
                failed = _libc.sem_trywait(self._semaphore)
            elif end is None:
                failed = _libc.sem_wait(self._semaphore)
            else:
                until = _Timespec(int(end), int(end % 1 * 1e9))
                failed = _libc.sem_timedwait(self._semaphore, ctypes.byref(until))
            if not failed:
                return True
            if ctypes.get_errno() in (errno.EAGAIN, errno.ETIMEDOUT):
                return False
            if ctypes.get_errno() != errno.EINTR:
                raise OSError(ctypes.get_errno(), "semaphore")

    def release(self) -> None:
        """Give one back."""
        if self.kind == _RECURSIVE:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._held > 1:
                self._held -= 1
                return
        elif self._get_value() >= self.maxvalue:
            raise ValueError("semaphore or lock released too many times")
        if _libc.sem_post(self._semaphore) != 0:
            raise OSError(ctypes.get_errno(), "semaphore")
        self._held -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _get_value(self) -> int:
        value = ctypes.c_int()
        _libc.sem_getvalue(self._semaphore, ctypes.byref(value))
        return max(0, value.value)

    def _is_mine(self) -> bool:
        return self._held > 0 and self._owner == threading.get_ident()

    def _is_zero(self) -> bool:
        return self._get_value() == 0

    def _count(self) -> int:
        return self._held

    def _after_fork(self) -> None:
        self._held = 0

    @staticmethod
    def _rebuild(*_: object) -> NoReturn:
        raise OSError(
            errno.ENOSYS, "only processes that are forked can share semaphores in the sandbox"
        )


class _Finder:
    """Finds two modules as ever: shared values get files without a directory, managers refuse."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, _: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's spec; None for any other."""
        if name not in ("multiprocessing.heap", "multiprocessing.managers"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            load = loader.exec_module

            def exec_module(module: Any) -> None:  # noqa: ANN401
                load(module)
                if name == "multiprocessing.heap":
                    module.Arena.__init__ = _open_arena
                else:
                    module.BaseManager.start = _refuse_manager

            loader.exec_module = exec_module
        return spec


def _refuse_manager(*_: object, **__: object) -> NoReturn:
    """Stand for `multiprocessing.managers.BaseManager.start`."""
    raise OSError(errno.ENOSYS, "multiprocessing.Manager needs sockets, which the sandbox has not")


def _open_arena(arena: Any, size: int, fd: int = -1) -> None:  # noqa: ANN401
    """Stand for `multiprocessing.heap.Arena.__init__`."""
    arena.size, arena.fd = size, fd
    if fd == -1:
        arena.fd = os.memfd_create("multiprocessing")
        sys.modules["multiprocessing.util"].Finalize(arena, os.close, (arena.fd,))
        os.ftruncate(arena.fd, size)
    arena.buffer = mmap.mmap(arena.fd, size)


def provide_multiprocessing() -> None:
    """Let every process that is forked from now on have these."""
    _extension.SemLock = SemLock
    finder: Any = _Finder
    sys.meta_path.insert(0, finder)
