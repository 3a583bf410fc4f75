"""What happens inside the process that runs a program: run it, report what it was seen to return.

Standard library only: this is loaded by the fork server of `reward.sandbox_child`. The report is a
file of JSON lines: `["loaded"]`, then one for each test in order, `["value", value]` or
`["error", kind, detail]`; or a single `["fatal", kind, detail]` when the program could not be
loaded. A program can write such lines itself; that gains it nothing, because it does not know which
values are right.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from reward.sandbox_link import ProgramSide, error_kind, error_text
from reward.sandbox_values import Encoder, describe

EXIT_MEMORY = 97  # the process had no memory left to say so
REPORT_FD = 3

Job = dict[str, Any]


def report(*line: object) -> None:
    """Append one line to the report; each is one write, so that a kill leaves whole lines."""
    view = memoryview(json.dumps(line).encode() + b"\n")
    while view:
        view = view[os.write(REPORT_FD, view) :]


def report_error(word: str, error: BaseException) -> None:
    """Append what an error says."""
    report(word, error_kind(error), error_text(error))


def _load(job: Job, name: str) -> dict[str, Any]:
    """Run the program as a module called `name`; return its namespace."""
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses and pickle look themselves up there
    namespace = module.__dict__
    for source, origin in ((job.get("imports", ""), "<imports>"), (job["code"], "<program>")):
        # Without the `__future__` imports of this module: a program has its own or none.
        exec(compile(source, origin, "exec", dont_inherit=True), namespace)
    return namespace


def _find_function(namespace: dict[str, Any], entry_point: str) -> Callable[..., object]:
    if entry_point in namespace:
        return namespace[entry_point]
    if "Solution" in namespace:
        return getattr(namespace["Solution"](), entry_point)
    message = f"name {entry_point!r} is not defined"
    raise NameError(message)


def _run_calls(job: Job) -> int:
    try:
        function = _find_function(_load(job, "solution"), job["entry_point"])
    except BaseException as error:  # noqa: BLE001 - the boundary to the program
        report_error("fatal", error)
        return 1
    report("loaded")
    for args in job["args"]:
        try:
            report("value", Encoder(describe).encode(function(*args)))
        except BaseException as error:  # noqa: BLE001 - the boundary to the program
            report_error("error", error)
    return 0


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
