"""Runs an ordinary program and its asserts in one process, as Python would.

The program is read first (`reward.sandbox.inside.asserts.honest`); one that is not ordinary is not
run, and the report says so: `["unjudged", why]`. The same line ends what is believed of the report
when the program is seen to do more than it was read to do (`reward.sandbox.inside.asserts.guard`).
A bare run has neither bar: what fails there fails in Python, and nothing else is believed of it.
Standard library only: this is loaded inside the sandbox.
"""

from __future__ import annotations

import ast
import builtins
import linecache
import sys
import types
from typing import Any

from reward.sandbox.inside.asserts.checks import (
    CHECKS,
    Checks,
    as_asserts,
    asserts_in_loops,
    is_failure,
)
from reward.sandbox.inside.asserts.checks import rewritten as rewritten_tests
from reward.sandbox.inside.asserts.guard import PROGRAM_FILE, PROGRAM_MODULE, TESTS_FILE, Watch
from reward.sandbox.inside.asserts.guard import rewritten as rewritten_program
from reward.sandbox.inside.asserts.honest import (
    NotHonestError,
    is_simple,
    names_in_tests,
    read_program,
)
from reward.sandbox.inside.link import error_kind, error_text
from reward.sandbox.inside.program import Job, report, report_error

_TESTS_MODULE = "tests"


def run_plain(job: Job) -> int:
    """Run the asserts of `job` beside its program; report each. Returns the exit status."""
    try:
        program = ast.parse(job["code"], PROGRAM_FILE)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report_error("fatal", error)
        return 1
    setup = ast.parse(job["setup"])
    asserts = [as_asserts(ast.parse(source)) for source in job["asserts"]]
    if job["mode"] == "bare":
        return _Run(job, None, Checks()).run(program, setup, asserts)
    names = names_in_tests([setup, *asserts], program)
    try:
        read_program(program, ast.parse(job["imports"]), names)
    except NotHonestError as reason:
        report("unjudged", str(reason))
        return 0
    watch = Watch(names.used, lambda what: report("unjudged", what))
    run = _Run(job, watch, Checks(), settles=is_simple(program))
    return run.run(program, setup, asserts)


class _TestGlobals(dict[str, Any]):
    """The namespace of tests that import nothing: what they do not define is the program's."""

    def __init__(self, program: dict[str, Any]) -> None:
        super().__init__(__name__=_TESTS_MODULE, __builtins__=builtins)
        self._program = program

    def __missing__(self, name: str) -> Any:  # noqa: ANN401
        return self._program[name]


class _Run:
    """One run of one program's tests."""

    def __init__(
        self, job: Job, watch: Watch | None, checks: Checks, *, settles: bool = False
    ) -> None:
        self._code: str = job["code"]
        self._sources: list[str] = job["asserts"]
        self._imports: str = job["imports"]
        self._opposite = job["mode"] == "opposite"
        self._passed = ("settled",) if settles else ("value", True)
        self._watch = watch
        self._checks = checks

    def run(self, program: ast.Module, setup: ast.Module, asserts: list[ast.Module]) -> int:
        """Load, set up, and run each of the asserts."""
        module = types.ModuleType(PROGRAM_MODULE)
        module.__dict__["__file__"] = PROGRAM_FILE
        sys.modules[PROGRAM_MODULE] = module
        self._setup = setup
        self._catches = any(map(_catches_failure, [setup, *asserts]))
        lines = self._code.splitlines(keepends=True)
        linecache.cache[PROGRAM_FILE] = (len(self._code), None, lines, PROGRAM_FILE)
        given = {} if _imports_program(setup) else module.__dict__
        namespace = _TestGlobals(given)
        namespace[CHECKS] = self._checks
        if self._watch is not None:
            module.__dict__["__builtins__"] = self._watch.builtins()
            namespace.update(self._watch.loops())
            program = rewritten_program(program)
            self._watch.start()
        try:
            exec(compile(self._imports, "<imports>", "exec", dont_inherit=True), module.__dict__)
            exec(self._compiled(program, PROGRAM_FILE), module.__dict__)
            exec(self._rewritten(setup), namespace)
        except BaseException as error:  # noqa: BLE001 - the boundary to the program
            report_error("fatal", error)
            return 1
        report("loaded")
        for source, part in zip(self._sources, asserts, strict=True):
            self._run_one(source, part, namespace)
        return 0

    def _run_one(self, source: str, part: ast.Module, namespace: dict[str, Any]) -> None:
        setup = self._setup
        checks = self._checks
        checks.begin()
        try:
            exec(self._rewritten(part), namespace)
        except BaseException as error:  # noqa: BLE001 - the boundary to program and tests
            if self._opposite or is_failure(error):
                report("value", False, checks.failure or error_text(error))
            else:
                report("error", error_kind(error), f"{source[:80]}: {error_text(error)}")
        else:
            # What is false may have been caught; without a check nothing is said.
            if self._opposite:
                report("value", None if not checks.num_made else not checks.num_false)
                return
            if checks.num_inside or (checks.num_false and not self._catches):
                report("unjudged", f"an assert that failed was caught: {checks.failure}")
            if not checks.num_made and asserts_in_loops(part, setup):
                report("unjudged", "the test came to none of its asserts")
            report(*self._passed)

    def _rewritten(self, tree: ast.Module) -> types.CodeType:
        rewritten = rewritten_tests(tree, self._checks, opposite=self._opposite)
        return self._compiled(rewritten, TESTS_FILE)

    def _compiled(self, tree: ast.Module, file: str) -> types.CodeType:
        return compile(tree, file, "exec", dont_inherit=True)


def _imports_program(setup: ast.Module) -> bool:
    """Whether tests import what they use of the program, so that the rest is Python's own."""
    return any(
        isinstance(node, ast.ImportFrom) and node.module == PROGRAM_MODULE
        for node in ast.walk(setup)
    )


def _catches_failure(tests: ast.Module) -> bool:
    """Whether tests themselves may catch an assert that fails."""
    return any(
        isinstance(node, ast.ExceptHandler)
        or (isinstance(node, ast.Call) and "aises" in ast.unparse(node.func))
        for node in ast.walk(tests)
    )
