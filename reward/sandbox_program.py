"""What happens inside the process that runs a program: run it, report what it was seen to return.

Standard library only: this is loaded by the fork server of `reward.sandbox_child`. The report is a
file of JSON lines, one for each test in order: `["value", value]` or `["error", kind, detail]`, or
a single `["fatal", kind, detail]` when the program could not be loaded. A program can write such
lines itself; that gains it nothing, because it does not know which values are right.
"""

from __future__ import annotations

import atexit
import errno
import functools
import json
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

EXIT_MEMORY = 97  # the process had no memory left to say so
REPORT_FD = 3

_MAX_DEPTH = 100
_MAX_NODES = 300_000
_DETAIL_CHARS = 300

Job = dict[str, Any]


class _ReportFullError(Exception):
    """A value is too large to be reported."""


class _Encoder:
    """Turns values into JSON that says their exact builtin type.

    None, booleans, small integers, floats, strings and lists stand for themselves; everything else
    is an object with one key: `int` (hexadecimal), `tuple`, `set`, `dict`, `bytes` or `opaque`.
    An instance of a subclass is read with the methods of the builtin, so what it overrides is never
    asked.
    """

    def __init__(self) -> None:
        self._num_nodes = 0

    def encode(self, value: Any, depth: int = 0) -> object:  # noqa: ANN401 - any value at all
        self._num_nodes += 1
        if self._num_nodes > _MAX_NODES:
            raise _ReportFullError
        if value is None:
            return None
        if depth < _MAX_DEPTH:
            for base in type(value).__mro__:
                encoder = _ENCODERS.get(base)
                if encoder is not None:
                    return encoder(self, value, depth + 1)
        return {"opaque": f"{type(value).__name__}: {repr(value)[:_DETAIL_CHARS]}"}

    def integer(self, value: int, _: int) -> object:
        exact = int.__pos__(value)
        return exact if -(2**53) < exact < 2**53 else {"int": hex(exact)}

    def sequence(self, value: list[Any], depth: int) -> list[object]:
        return [self.encode(item, depth) for item in list[Any].__iter__(value)]

    def pairs(self, value: dict[Any, Any], depth: int) -> object:
        items = [
            [self.encode(key, depth), self.encode(item, depth)]
            for key, item in dict[Any, Any].items(value)
        ]
        return {"dict": items}


_ENCODERS: dict[type, Callable[[_Encoder, Any, int], object]] = {
    bool: lambda _, value, __: bool(value),
    int: _Encoder.integer,
    float: lambda _, value, __: float.__pos__(value),
    str: lambda _, value, __: str.__str__(value),
    bytes: lambda _, value, __: {"bytes": bytes.hex(value)},
    list: _Encoder.sequence,
    tuple: lambda self, value, depth: {
        "tuple": self.sequence(list(tuple[Any, ...].__iter__(value)), depth)
    },
    set: lambda self, value, depth: {"set": self.sequence(list(set[Any].__iter__(value)), depth)},
    frozenset: lambda self, value, depth: {
        "set": self.sequence(list(frozenset[Any].__iter__(value)), depth)
    },
    dict: _Encoder.pairs,
}


def _report(*line: object) -> None:
    """Append one line to the report; each is one write, so that a kill leaves whole lines."""
    view = memoryview(json.dumps(line).encode() + b"\n")
    while view:
        view = view[os.write(REPORT_FD, view) :]


def _report_error(word: str, error: BaseException) -> None:
    error.__traceback__ = None  # frees the program's locals, which may fill the memory
    if isinstance(error, MemoryError):
        kind = "memory"
    elif isinstance(error, _ReportFullError) or (
        isinstance(error, OSError) and error.errno == errno.EFBIG
    ):
        kind = "output_limit"
    elif (isinstance(error, OSError) and error.errno == errno.EAGAIN) or (
        isinstance(error, RuntimeError) and "can't start new thread" in str(error)
    ):
        kind = "process_limit"
    else:
        kind = "runtime_error"
    try:
        detail = f"{type(error).__name__}: {error}"[:_DETAIL_CHARS]
    except Exception:  # noqa: BLE001 - the program's own `__str__`
        detail = type(error).__name__
    _report(word, kind, detail)


def _load(job: Job, name: str) -> dict[str, Any]:
    """Run the program as a module called `name`; return its namespace."""
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses and pickle look themselves up there
    namespace = module.__dict__
    setup = compile(job.get("setup", ""), "<setup>", "exec")
    exec(setup, namespace)
    exec(compile(job["code"], "<program>", "exec"), namespace)
    # Again: answers like to carry a `check` of their own, which must not replace the problem's.
    exec(setup, namespace)
    return namespace


def _find_function(namespace: dict[str, Any], entry_point: str) -> Callable[..., object]:
    if entry_point in namespace:
        return namespace[entry_point]
    if "Solution" in namespace:
        return getattr(namespace["Solution"](), entry_point)
    message = f"name {entry_point!r} is not defined"
    raise NameError(message)


def _observe(thunk: Callable[[], object]) -> None:
    """Report the value of one test, or its error."""
    try:
        _report("value", _Encoder().encode(thunk()))
    except BaseException as error:  # noqa: BLE001 - the boundary to the program
        _report_error("error", error)


def _run_calls(job: Job) -> int:
    try:
        function = _find_function(_load(job, "solution"), job["entry_point"])
    except BaseException as error:  # noqa: BLE001 - the boundary to the program
        _report_error("fatal", error)
        return 1
    for args in job["args"]:
        _observe(functools.partial(function, *args))
    return 0


def _run_snippets(job: Job) -> int:
    try:
        namespace = _load(job, "solution")
    except BaseException as error:  # noqa: BLE001 - the boundary to the program
        _report_error("fatal", error)
        return 1

    def holds(source: str) -> bool:
        try:
            exec(source, namespace)
        except AssertionError:
            return False
        return True

    for source, is_expression in job["snippets"]:
        if is_expression:
            _observe(functools.partial(eval, source, namespace))
        else:
            _observe(functools.partial(holds, source))
    return 0


def _run_stdio(job: Job) -> int:
    try:
        try:
            _load(job, "__main__")
        except SystemExit as error:
            if error.code not in (None, 0):
                raise
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] - some programs print there
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the boundary to the program
        _report_error("error", error)
        return 1
    return 0


_RUNNERS: dict[str, Callable[[Job], int]] = {
    "calls": _run_calls,
    "snippets": _run_snippets,
    "stdio": _run_stdio,
}


def run_program(job: Job) -> int:
    """Run the program of `job` and report its tests. Returns the exit status of the process."""
    try:
        return _RUNNERS[job["kind"]](job)
    except MemoryError:
        return EXIT_MEMORY
