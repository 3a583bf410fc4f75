"""What happens inside the process that runs asserts: the tests are here, the program is not.

Every name that the tests use and do not define stands for what the program made of it, in its own
process (`reward.sandbox_link`). So the expected values are never where the program could look, and
whatever it returns is builtin data before anything is compared with it. Standard library only.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from reward.sandbox_link import PeerGoneError, TestSide
from reward.sandbox_program import LINK_FDS, Job, report, report_error

EXIT_PEER_GONE = 98  # the program ended, or broke the conversation
_MODULE = "solution"  # what pytest-style tests import the program as


def run_asserts(job: Job) -> int:
    """Run the asserts of `job` and report each. Returns the exit status of the process."""
    with open(LINK_FDS[0], "rb") as reader, open(LINK_FDS[1], "wb") as writer:
        side = TestSide(reader, writer, job["limits"]["output_bytes"])
        try:
            return _run(job, side)
        except PeerGoneError as gone:
            if gone.too_large:
                report("error", "output_limit", "a value is too large")
            return EXIT_PEER_GONE


def _run(job: Job, side: TestSide) -> int:
    trees = [ast.parse(source) for source in (job["setup"], *job["asserts"])]
    names = side.names(sorted({name for tree in trees for name in _names_of(tree)}))
    # Where a test says `math.isclose`, it means the module, whatever the program calls so.
    for name in {name for tree in trees for name in _modules_of(tree)} & names.keys():
        names[name] = importlib.import_module(name)
    module = types.ModuleType(_MODULE)
    module.__dict__.update(names)
    sys.modules[_MODULE] = module
    namespace: dict[str, Any] = {"__name__": "tests"}
    # The tests must not be judged by an `abs` of the program's making.
    namespace.update({name: v for name, v in names.items() if not hasattr(builtins, name)})
    try:
        exec(compile(job["setup"], "<setup>", "exec"), namespace)
    except BaseException as error:  # the program's part in it; its own is checked beforehand
        if isinstance(error, PeerGoneError):
            raise
        report_error("fatal", error)
        return 1
    report("loaded")
    for source in job["asserts"]:
        try:
            exec(compile(_asserted(source), "<assert>", "exec"), namespace)
        except PeerGoneError:
            raise
        except AssertionError:
            report("value", False)
        except BaseException as error:  # noqa: BLE001 - the boundary to the tests
            report_error("error", error)
        else:
            report("value", True)
    return 0


def _asserted(source: str) -> ast.Module:
    """The statement; an expression of its own has to hold, or if it is a call, not to be False."""
    tree = ast.parse(source)
    for index, statement in enumerate(tree.body):
        if isinstance(statement, ast.Expr):
            test = statement.value
            if isinstance(test, ast.Call):  # such as `check(f)`, which returns nothing
                test = ast.Compare(test, [ast.IsNot()], [ast.Constant(value=False)])
            tree.body[index] = ast.copy_location(ast.Assert(test=test), statement)
    return ast.fix_missing_locations(tree)


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
            case ast.Attribute(value=ast.Name(id=name)) if name in sys.stdlib_module_names:
                yield name
            case _:
                pass
