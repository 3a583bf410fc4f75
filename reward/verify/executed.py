"""Executed lines and branches: which statements of a program run on given inputs.

A program is watched by marks that are written into its source before it goes into the sandbox, one
before every statement and one into every arm of a condition, loop or `match`; a statement of many
lines is one. That is one mechanism for every version of Python, at the cost of one call for each
statement.

Marks are reported by the process of the program, which may report anything: what is seen here is
never a reason to reward that program. Where it did not report, nothing is known of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, cast

from reward.code.normal_form import parse
from reward.sandbox.pool import CallJob, Job, Outcome, StdioJob
from reward.sandbox.report import Ending
from reward.verify.generated_tests import CallTest, GeneratedTest
from reward.verify.matrix import Observing, inputs_of, job_of, observe_persistently
from rl.types import Executed, Prompt

_SEEN, _MARK, _RUN = "_codescaler_seen", "_codescaler_mark", "_codescaler_run"
_Span = tuple[int, int]  # first and last line

_REPORT = f"sorted(names.get({_SEEN!r}, ()))"
_CALLS = """
def {run}(index):
    inf, nan = float("inf"), float("nan")
    def call(name, *args):
        if name in globals():
            return globals()[name](*args)
        return getattr(globals()["Solution"](), name)(*args)
    try:
        ({calls},)[index]()
    except BaseException:
        pass
    names = globals()
    return {report}
"""
_SCRIPT = """
def {run}(index):
    import io, os, sys
    with open("input", "wb") as file:
        file.write({stdins!r}[index].encode(errors="replace"))
    source = os.open("input", os.O_RDONLY)
    if source:  # else the program before has closed its standard input
        os.dup2(source, 0)
        os.close(source)
    sys.stdin = open(0, closefd=False)
    sys.stdout = io.TextIOWrapper(io.BytesIO())
    names = {{"__name__": "__main__"}}
    try:
        exec(compile({imports!r}, "<imports>", "exec"), names)
        exec(compile({code!r}, "<program>", "exec"), names)
    except BaseException:
        pass
    return {report}
"""


def executed_programs(
    verifier: Observing, problem: Prompt, codes_G: Sequence[str]
) -> list[Executed | None]:
    """What of each program runs on the inputs of the problem's tests, taken together."""
    tests = inputs_of(problem)
    different = list(dict.fromkeys(codes_G))
    found = executed_on(verifier, problem, [(code, tests) for code in different])
    by_code = dict(zip(different, found, strict=True))
    return [by_code[code] for code in codes_G]


def executed_on(
    verifier: Observing, problem: Prompt, runs_N: Sequence[tuple[str, Sequence[GeneratedTest]]]
) -> list[Executed | None]:
    """What of each program runs on the inputs that stand beside it, taken together.

    None where nothing is known: no program, no input, one that did not end by itself.
    Raises SandboxError when a program cannot be run at all, after three attempts.
    """
    jobs: dict[int, tuple[_Marked, Job]] = {}
    for index, (code, tests) in enumerate(runs_N):
        marked = _mark(code) if code and tests else None
        if marked is not None:
            job = job_of(problem, code, tests)
            jobs[index] = marked, watching(job, marked.code, tests, _REPORT)
    outcomes = observe_persistently(verifier, [job for _, job in jobs.values()])
    found: list[Executed | None] = [None] * len(runs_N)
    for (index, (marked, _)), outcome in zip(jobs.items(), outcomes, strict=True):
        found[index] = _executed(marked, outcome)
    return found


@dataclass(frozen=True, slots=True)
class _Marked:
    """A program with marks, and what each stands for: lines of a statement, or None, an arm."""

    code: str
    spans_K: tuple[_Span | None, ...]


def _mark(code: str) -> _Marked | None:
    tree = parse(code)
    if tree is None:
        return None
    marker = _Marker()
    try:
        tree.body = marker.block(tree.body)
        put_first(tree, f"{_SEEN} = set()\n{_MARK} = {_SEEN}.add")
        return _Marked(ast.unparse(tree), tuple(marker.spans))
    except RecursionError:
        return None


def put_first(tree: ast.Module, source: str) -> None:
    """Let a program begin with `source`, after its docstring and imports from the future."""
    head = sum(1 for _ in takewhile(lambda one: is_text(one) or _is_future(one), tree.body))
    tree.body[head:head] = ast.parse(source).body


class _Marker:
    """Writes marks into the blocks of a syntax tree."""

    def __init__(self) -> None:
        self.spans: list[_Span | None] = []

    def block(self, body: list[ast.stmt], *, is_arm: bool = False) -> list[ast.stmt]:
        """The statements of a block, a mark before each."""
        marked = [self._new(None)] if is_arm else []
        for position, statement in enumerate(body):
            if position or not is_text(statement):  # a docstring stays the first
                marked += [] if _is_future(statement) else [self._new(_own_lines(statement))]
            self._inner(statement)
            marked.append(statement)
        return marked

    def _inner(self, statement: ast.stmt) -> None:
        """Mark the blocks that a statement holds."""
        match statement:
            case ast.If() | ast.For() | ast.AsyncFor() | ast.While():
                statement.body = self.block(statement.body, is_arm=True)
                statement.orelse = self.block(statement.orelse, is_arm=True)
            case ast.Match():
                for case in statement.cases:
                    case.body = self.block(case.body, is_arm=True)
            case ast.Try() | ast.TryStar():
                for handler in statement.handlers:
                    handler.body = self.block(handler.body)
                statement.body = self.block(statement.body)
                statement.orelse = self.block(statement.orelse)
                statement.finalbody = self.block(statement.finalbody)
            case (
                ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef()
                | ast.With() | ast.AsyncWith()
            ):  # fmt: skip
                statement.body = self.block(statement.body)
            case _:
                pass

    def _new(self, span: _Span | None) -> ast.stmt:
        self.spans.append(span)
        return ast.parse(f"{_MARK}({len(self.spans) - 1})").body[0]


def is_text(statement: ast.stmt) -> bool:
    """Whether a statement says nothing, as a docstring."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _own_lines(statement: ast.stmt) -> _Span:
    """Lines of a statement, without those of the blocks that it holds."""
    decorators = cast("list[ast.expr]", getattr(statement, "decorator_list", []))
    first = min([statement.lineno, *(d.lineno for d in decorators)])
    last = statement.end_lineno or statement.lineno
    inner = [node.lineno for node in _blocks(statement)]
    return first, max(first, min(inner) - 1) if inner else last


def _blocks(statement: ast.stmt) -> Iterator[ast.stmt | ast.expr | ast.pattern]:
    """The first node of the blocks of a statement."""
    if isinstance(statement, ast.Match):
        yield statement.cases[0].pattern
    else:
        yield from cast("list[ast.stmt]", getattr(statement, "body", []))[:1]


def watching(
    job: Job, code: str, tests: Sequence[GeneratedTest], report: str, helpers: str = ""
) -> Job:
    """The job that gives, for each input, `report` once `code`, in place of the job's, has ended.

    It is an expression on `names`, the program's namespace, and may call what `helpers` define.
    """
    args_N = tuple((index,) for index in range(len(tests)))
    if isinstance(job, StdioJob):
        script = _SCRIPT.format(
            run=_RUN, stdins=job.stdins_N, imports=job.imports, code=code, report=report
        )
        return CallJob(
            code=helpers + script, entry_point=_RUN, args_N=args_N, time_limit_s=job.time_limit_s
        )
    calls = [cast("CallTest", test) for test in tests]
    written = ", ".join(
        f"lambda: call({', '.join(map(repr, (call.name, *call.args)))})" for call in calls
    )
    watched = f"{code}\n{helpers}" + _CALLS.format(run=_RUN, calls=written, report=report)
    return replace(cast("CallJob", job), code=watched, entry_point=_RUN, args_N=args_N)


def _executed(marked: _Marked, outcome: Outcome) -> Executed | None:
    """What was seen on all inputs together; None where an input has no report that makes sense."""
    known, seen = range(len(marked.spans_K)), set[int]()
    for observation in outcome.observations_N:
        value: Any = observation.value
        if observation.kind is not Ending.FINISHED or not isinstance(value, list):
            return None
        numbers = cast("list[Any]", value)
        if not all(type(number) is int and number in known for number in numbers):
            return None
        seen.update(numbers)
    reached, left = set[int](), set[int]()
    for number, span in enumerate(marked.spans_K):
        if span is not None:
            (reached if number in seen else left).update(range(span[0], span[1] + 1))
    arms = [number for number in known if marked.spans_K[number] is None]
    return Executed(
        left_lines=tuple(sorted(left - reached)),
        num_branches=len(arms),
        num_taken=sum(number in seen for number in arms),
    )
