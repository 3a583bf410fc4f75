"""A program run as a script: with the module, the streams and the end that plain Python gives it.

What comes after a program's last line (threads that still run, `atexit`, buffers that are only
written when their objects go) comes here as it does in `Py_FinalizeEx`, in the same order, but for
the modules of the program alone: taking down those of the server would copy all its memory. A
program that fails is left to the interpreter itself. Standard library only: this is loaded by the
fork server.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib.machinery
import io
import os
import sys
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

from reward.sandbox.inside.program import EXIT_MEMORY, Job, report_error

FILE_NAME = "solution.py"
_MODULE = "__main__"
_FLUSH_FAILED = 120  # the status of Python's own
_libc = ctypes.CDLL(None)


# Modules of the server, and how many names each has.
_known: list[tuple[types.ModuleType, int]] = []


def remember_modules() -> None:
    """Take note of what is loaded before any program: it is not the program's to take down."""
    _known[:] = [
        (module, len(module.__dict__))
        for name, module in sys.modules.items()
        if name not in (_MODULE, "sys")
    ]


class Script:
    """The context that a program runs in; whoever enters it executes `code` in `namespace`.

    The process ends with it: an error is reported and goes on to the interpreter, which ends with
    the status that it has for it.
    """

    code: types.CodeType

    def __init__(self, job: Job) -> None:
        self._source: bytes = job["code"].encode(errors="surrogatepass")
        self._imports: str = job.get("imports", "")
        self._recursion_limit: int | None = job.get("recursion_limit")
        self._pid = os.getpid()
        self.namespace: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            path = os.path.join(os.getcwd(), FILE_NAME)
            sys.argv[:] = [FILE_NAME]
            sys.path.insert(0, os.path.dirname(path))
            module = types.ModuleType(_MODULE)
            sys.modules[_MODULE] = module
            self.namespace = module.__dict__
            self.namespace |= {
                "__loader__": importlib.machinery.SourceFileLoader(_MODULE, path),
                "__annotations__": {},
                "__builtins__": sys.modules["builtins"],
                "__file__": path,
                "__cached__": None,
            }
            if self._recursion_limit:
                sys.setrecursionlimit(self._recursion_limit)
            if self._imports:
                code = compile(self._imports, "<imports>", "exec", dont_inherit=True)
                exec(code, self.namespace)
            # The bytes, not the text: a byte order mark and a coding line count as in a file.
            self.code = compile(self._source, path, "exec", dont_inherit=True)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: object
    ) -> None:
        self.namespace = {}  # nothing of ours may keep what ends with the program
        if error is None or (isinstance(error, SystemExit) and _is_success(error.code)):
            _leave(_known)
        if os.getpid() != self._pid:  # a child of the program: its end is no end of the program
            return
        lines = error.__traceback__
        try:
            report_error("error", error)
        except MemoryError:
            os._exit(EXIT_MEMORY)
        if not isinstance(error, MemoryError):
            with contextlib.suppress(Exception):
                error.__traceback__ = lines  # for a `sys.excepthook` of the program


def _is_success(code: object) -> bool:
    return code is None or (isinstance(code, int) and code == 0)


def _leave(known: Sequence[tuple[types.ModuleType, int]]) -> NoReturn:
    """End as the interpreter does; `known` are the modules of the server and their sizes."""
    _flush()
    if "threading" in sys.modules:
        with contextlib.suppress(Exception):
            sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    status = 0 if _flush() else _FLUSH_FAILED
    for name in ("path", "argv", "last_type", "last_value", "last_traceback", "meta_path"):
        setattr(sys, name, None)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, getattr(sys, f"__{name}__", None))
    left = [_forget(name) for name in list(sys.modules)]
    gc.collect()
    ours = {id(module) for module, _ in known}
    for reference in reversed(left):
        module = reference()
        if module is not sys and id(module) not in ours:
            _clear(module, 0)
    for module, size in known:
        if len(module.__dict__) > size:
            _clear(module, size)
    gc.collect()
    _flush()
    _libc.fflush(None)  # what was printed by C
    os._exit(status)


def _flush() -> bool:
    """Flush the standard streams; whether that went well."""
    good = True
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        closed = False
        with contextlib.suppress(BaseException):
            closed = stream is None or bool(stream.closed)
        if not closed:
            try:
                stream.flush()  # pyright: ignore[reportOptionalMemberAccess]
            except BaseException:  # noqa: BLE001 - a stream of the program's own
                good = False
    return good


def _forget(name: str) -> Callable[[], object]:
    """Let a module go; returns what says whether something keeps it."""
    module: object = sys.modules[name]
    sys.modules[name] = None  # pyright: ignore[reportArgumentType] - as the interpreter does
    try:
        return weakref.ref(module)
    except TypeError:
        return lambda: None


def _clear(module: object, num_known: int) -> None:
    """Let everything in a module go that came after its first names, private names first."""
    if not isinstance(module, types.ModuleType):
        return
    names = list(module.__dict__)[num_known:]
    private = [name for name in names if name.startswith("_") and not name.startswith("__")]
    for name in [*private, *(name for name in names if name not in ("__builtins__", *private))]:
        module.__dict__[name] = None


def write_source(job: Job, directory: str, uid: int | None) -> None:
    """Write the program where it runs, as a file of its own."""
    path = os.path.join(directory, FILE_NAME)
    with open(path, "wb") as file:
        if uid is not None:
            os.fchown(file.fileno(), uid, -1)
        file.write(job["code"].encode(errors="surrogatepass"))


def open_streams(errors: str) -> None:
    """Open the standard streams anew, as an interpreter does at its start.

    `errors` is what the interpreter does with bytes that are not UTF-8.
    """
    sys.stdin = sys.__stdin__ = _stream(0, "r", "<stdin>", errors)
    sys.stdout = sys.__stdout__ = _stream(1, "w", "<stdout>", errors)
    sys.stderr = sys.__stderr__ = _stream(2, "w", "<stderr>", "backslashreplace")


def _stream(fd: int, mode: str, name: str, errors: str) -> io.TextIOWrapper:
    buffer: Any = open(fd, mode + "b", closefd=False)  # noqa: SIM115
    buffer.raw.name = name
    stream: Any = io.TextIOWrapper(
        buffer, encoding="utf-8", errors=errors, newline="\n", line_buffering=fd == 2
    )
    stream.mode = mode
    return stream
