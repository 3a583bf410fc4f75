"""What happens in the process that runs asserts strictly: the tests are here, the program is not.

Every name that the tests use and do not define stands for what the program made of it, in its own
process (`reward.sandbox.inside.link`). So the expected values are never where the program could
look, and whatever it returns is builtin data before anything is compared with it. That is as far as
it goes: a test that asks for more, an object's identity say, is not judged. Standard library only.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from reward.sandbox.inside.asserts.checks import (
    CHECKS,
    Checks,
    as_asserts,
    asserts_in_loops,
    is_failure,
    rewritten,
)
from reward.sandbox.inside.asserts.words import words
from reward.sandbox.inside.link import PeerGoneError, TestSide, error_text
from reward.sandbox.inside.program import LINK_FDS, Job, report, report_error

EXIT_PEER_GONE = 98  # the program ended, or broke the conversation
_MODULE = "solution"  # what pytest-style tests import the program as


_MODULES = {"np": "numpy", "numpy": "numpy", "pd": "pandas", "pandas": "pandas"}

# What tests use where a value must be the very one that the program made.
_NEED_THE_VALUE = words(
    """
    type id vars dir hasattr getattr setattr isinstance issubclass callable mock patch MagicMock
    Mock monkeypatch capsys redirect_stdout redirect_stderr StringIO inspect copy deepcopy pickle
    gc weakref sys caplog assertLogs warns catch_warnings getrefcount stdout stderr
    """
)


def run_asserts(job: Job) -> int:
    """Run the asserts of `job` and report each. Returns the exit status of the process."""
    with open(LINK_FDS[0], "rb") as reader, open(LINK_FDS[1], "wb") as writer:
        side = TestSide(
            reader, writer, job["limits"]["output_bytes"], lambda why: report("unjudged", why)
        )
        try:
            return _run(job, side)
        except PeerGoneError as gone:
            if gone.too_large:
                report("error", "output_limit", "a value is too large")
            return EXIT_PEER_GONE


def _run(job: Job, side: TestSide) -> int:
    checks = Checks()
    setup = ast.parse(job["setup"])
    asserts = [as_asserts(ast.parse(source)) for source in job["asserts"]]
    trees = [setup, *asserts]
    for need in (need for tree in trees for need in _needs(tree)):
        report("unjudged", f"the tests need the program's own {need}")
        return 0
    names = side.names(sorted({name for tree in trees for name in _names_of(tree)}))
    # Where a test says `math.isclose`, it means the module, whatever the program calls so.
    for name in {name for tree in trees for name in _modules_of(tree)} & names.keys():
        names[name] = importlib.import_module(_MODULES.get(name, name))
    module = types.ModuleType(_MODULE)
    module.__dict__.update(names)
    sys.modules[_MODULE] = module
    namespace: dict[str, Any] = {"__name__": "tests", CHECKS: checks}
    # The tests must not be judged by an `abs` of the program's making.
    namespace.update({name: v for name, v in names.items() if not hasattr(builtins, name)})
    try:
        exec(_compiled(setup, checks), namespace)
    except BaseException as error:  # the program's part in it; its own is checked beforehand
        if isinstance(error, PeerGoneError):
            raise
        if side.inexact is None:
            report_error("fatal", error)
        else:
            report("unjudged", side.inexact)
        return 1
    report("loaded")
    expects = any(_expects_errors(tree) for tree in trees)
    for part in asserts:
        code = _compiled(part, checks)
        checks.in_loops = asserts_in_loops(part, setup)
        _run_one(code, namespace, side, checks, expects=expects)
    return 0


def _run_one(
    code: types.CodeType,
    namespace: dict[str, Any],
    side: TestSide,
    checks: Checks,
    *,
    expects: bool,
) -> None:
    checks.begin()
    failure: BaseException | None = None
    try:
        exec(code, namespace)
    except PeerGoneError:
        raise
    except BaseException as error:  # noqa: BLE001 - the boundary to the tests
        failure = error
    of_program = hasattr(failure, "kind_in_program")
    if side.inexact is not None and (expects or not of_program):
        report("unjudged", side.inexact)
    if failure is None:
        if checks.num_false:
            report("unjudged", f"an assert that failed was caught: {checks.failure}")
        if checks.in_loops and not checks.num_made:
            report("unjudged", "the test came to none of its asserts")
        report("value", True)
    elif is_failure(failure):
        report("value", False, checks.failure or error_text(failure))
    elif of_program:
        report_error("error", failure)
    else:  # of the tests themselves, which may have met a stand-in
        report("unjudged", error_text(failure))
        report("value", False)


def _expects_errors(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Try) or (isinstance(node, ast.Attribute) and "aises" in node.attr)
        for node in ast.walk(tree)
    )


def _compiled(tree: ast.Module, checks: Checks) -> types.CodeType:
    return compile(rewritten(tree, checks, opposite=False), "tests.py", "exec", dont_inherit=True)


def _needs(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in _NEED_THE_VALUE:
                yield name
            case ast.Attribute(attr="equals" | "equal" as name):
                yield name
            case ast.alias(name="*"):
                yield "module, all of it"
            case ast.alias(name=name, asname=str()) if name == _MODULE:
                yield "module, under another name"
            case ast.alias(name=name) if name.partition(".")[0] in _NEED_THE_VALUE:
                yield name
            case ast.Compare(ops=ops, comparators=others):
                for op, other in zip(ops, others, strict=True):
                    if isinstance(op, ast.Is | ast.IsNot) and not isinstance(other, ast.Constant):
                        yield "identity"
            case ast.AsyncFunctionDef() | ast.Await():
                yield "coroutines"
            case _:
                pass


def _names_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name):
                yield name
            case ast.ImportFrom(module="solution", names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.Attribute(value=ast.Name(id="solution"), attr=name):
                yield name
            case _:
                pass


def _modules_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name)) if (
                name in sys.stdlib_module_names or name in _MODULES
            ):
                yield name
            case _:
                pass
