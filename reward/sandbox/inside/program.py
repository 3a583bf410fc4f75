"""What happens inside the process that runs a program: run it, report what it was seen to return.

Standard library only: this is loaded by the fork server of `reward.sandbox.inside.child`. The
report is a file of JSON lines: `["loaded"]`, then one for each test in order, `["value", value]` or
`["error", kind, detail]`; or a single `["fatal", kind, detail]` when the program could not be
loaded. A program can write such lines itself; that gains it nothing, because it does not know which
values are right.
"""

from __future__ import annotations

import contextlib
import json
import os
import symtable
import sys
import types
from collections.abc import Callable
from typing import Any

from reward.sandbox.inside.link import ProgramSide, error_kind, error_text
from reward.sandbox.inside.preamble import preamble_builtins
from reward.sandbox.inside.values import Encoder, TooLargeError, describe

EXIT_FULL = 96  # the report has no room for the next value; another process goes on
EXIT_MEMORY = 97  # the process had no memory left to say so
REPORT_FD = 3
_STDOUT_FD = 1
_NODE_BYTES = 2  # what the smallest part of a value takes in a report
_NOTHING = object()

Job = dict[str, Any]


def report(*line: object) -> None:
    """Append one line to the report; each is one write, so that a kill leaves whole lines."""
    _write(_line(*line))


def _line(*line: object) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _write(line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(REPORT_FD, view) :]


def report_error(word: str, error: BaseException) -> None:
    """Append what an error says."""
    report(word, error_kind(error), error_text(error))


def _module(name: str) -> dict[str, Any]:
    """Make a module called `name`; return its namespace."""
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses and pickle look themselves up there
    return module.__dict__


def _execute(source: str, origin: str, namespace: dict[str, Any]) -> None:
    # Without the `__future__` imports of this module: a program has its own or none.
    exec(compile(source, origin, "exec", dont_inherit=True), namespace)


def _load(job: Job, name: str) -> dict[str, Any]:
    """Run the program as a module called `name`; return its namespace."""
    namespace = _module(name)
    _execute(job.get("imports", ""), "<imports>", namespace)
    _execute(job["code"], "<program>", namespace)
    return namespace


def _load_function(job: Job) -> Callable[[], Callable[..., object]]:
    """Run the program; return what gives the function that one case calls.

    A function that the program itself defines comes first, then the method of a new instance of its
    class `Solution`, then what it imports. What it was given to be imported is never called.
    """
    namespace, name, code = _module("solution"), job["entry_point"], job["code"]
    if job["preamble"]:
        namespace["__builtins__"] = preamble_builtins()
    if job["imports"]:
        _execute(job["imports"], "<imports>", namespace)
    given = namespace.get(name, _NOTHING)
    _execute(code, "<program>", namespace)
    function: Any = namespace.get(name, _NOTHING)
    solution: Any = namespace.get("Solution")
    if function is given and not _binds(code, name, imports=True):
        function = _NOTHING
    if solution is not None and (
        function is _NOTHING or (hasattr(solution, name) and not _binds(code, name, imports=False))
    ):
        return lambda: getattr(solution(), name)
    if function is _NOTHING:
        message = f"name {name!r} is not defined"
        raise NameError(message)
    return lambda: function


def _binds(code: str, name: str, *, imports: bool) -> bool:
    """Whether the module level of a program binds a name; with `imports`, by an import too."""
    try:
        symbol = symtable.symtable(code, "<program>", "exec").lookup(name)
    except KeyError:  # by a star, by `exec`, or not at all
        return imports and "import *" in code
    return symbol.is_assigned() or (imports and symbol.is_imported())


def _run_calls(job: Job) -> int:
    sys.setrecursionlimit(job["recursion_limit"] or sys.getrecursionlimit() + _depth())
    try:
        function = _load_function(job)
    except BaseException as error:  # noqa: BLE001 - the boundary to the program
        report_error("fatal", error)
        return 1
    report("loaded")
    limit = job["limits"]["output_bytes"]
    for number, args in enumerate(job["args"]):
        try:
            value = Encoder(describe, limit // _NODE_BYTES).encode(function()(*args))
            line = _line("value", value)
            if len(line) > limit - os.fstat(REPORT_FD).st_size:
                if number:
                    return EXIT_FULL
                raise TooLargeError
            _write(line)
        except BaseException as error:  # noqa: BLE001 - the boundary to the program
            report_error("error", error)
        _drop_output()
    return 0


def _depth() -> int:
    """How many calls there are below the caller's, which leave a program fewer."""
    depth, frame = 0, sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    return depth


def _drop_output() -> None:
    """Forget what was printed: the limit is for each test, and nobody reads it."""
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        if os.lseek(_STDOUT_FD, 0, os.SEEK_CUR):
            os.ftruncate(_STDOUT_FD, 0)
            os.lseek(_STDOUT_FD, 0, os.SEEK_SET)


def _run_asserts(job: Job) -> int:
    """Load the program and answer the process of the tests, on descriptors 4 and 5."""
    try:
        namespace = _load(job, "solution")
    except BaseException as error:  # noqa: BLE001 - the boundary to the program
        report_error("fatal", error)
        return 1
    with open(LINK_FDS[0], "rb") as reader, open(LINK_FDS[1], "wb") as writer:
        ProgramSide(namespace, reader, writer, job["limits"]["output_bytes"]).link.serve()
    return 0


LINK_FDS = (4, 5)  # to read from, to write to


_RUNNERS: dict[str, Callable[[Job], int]] = {
    "calls": _run_calls,
    "asserts": _run_asserts,
}


def run_program(job: Job) -> int:
    """Run the program of `job` and report its tests. Returns the exit status of the process."""
    try:
        return _RUNNERS[job["kind"]](job)
    except MemoryError:
        return EXIT_MEMORY
