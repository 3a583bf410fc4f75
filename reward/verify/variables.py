"""Final variables: what the variables of a program hold when it ends on an input.

Of a function they are what it assigns, as the call leaves them; of a whole program what its module
level assigns, main guard or not, and where that is nothing, what the function assigns that its last
statement calls. Which names these are, its source says. Their values are kept by a statement that
is written into the source before it goes into the sandbox, as marks are (`reward.verify.executed`).

Values are reported by the process of the program, which may report anything, of itself and of no
other. They are read as data, and only what a literal can say of exact builtin types is taken.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from reward.code.normal_form import parse
from reward.sandbox.pool import Job, Outcome
from reward.sandbox.report import Ending
from reward.verify.comparison import literal_text
from reward.verify.executed import is_text, put_first, watching
from reward.verify.generated_tests import CallTest, GeneratedTest
from reward.verify.matrix import Observing, job_of, observe_persistently
from rl.types import Prompt, Variables

_MOST = 3  # of a program, the last ones: as in CodeRL+
_MAX_CHARS = 256  # of a value
_OUTPUT = "output"  # what an answer calls the result
_LEFT, _LOCALS, _VALUES = "_codescaler_left", "_codescaler_locals", "_codescaler_values"

_HELPERS = """
def {values}(found):
    from builtins import BaseException, all, bool, bytes, complex, dict, float, int, len, list
    from builtins import map, repr, set, str, tuple, type
    plain = (bool, int, float, complex, str, bytes, type(None))
    def is_plain(value):
        kind = type(value)
        if kind in (list, tuple, set):
            return all(map(is_plain, value))
        if kind is dict:
            return all(is_plain(key) and is_plain(item) for key, item in value.items())
        return kind in plain
    def said(name):
        try:
            value = found[name]
            return [value] if is_plain(value) and len(repr(value)) <= {most} else []
        except BaseException:
            return []
    return [said(name) for name in {names!r}]
"""
_SCOPES = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip


def final_variables(
    verifier: Observing, problem: Prompt, codes_G: Sequence[str], test: GeneratedTest
) -> dict[str, Variables | None]:
    """What the last variables of each program hold after the test's input.

    None where nothing is known: it did not end by itself, or its report makes no sense. Raises
    SandboxError when a program cannot be run at all, after three attempts.
    """
    found: dict[str, Variables | None] = {}
    jobs: dict[str, tuple[_Kept, Job]] = {}
    for code in dict.fromkeys(codes_G):
        kept = _keep(code, test.name if isinstance(test, CallTest) else None)
        found[code] = None if kept is None else ()
        if kept is not None and kept.names:
            jobs[code] = kept, _watched(job_of(problem, code, [test]), kept, test)
    outcomes = observe_persistently(verifier, [job for _, job in jobs.values()])
    for (code, (kept, _)), outcome in zip(jobs.items(), outcomes, strict=True):
        found[code] = _read(kept.names, outcome)
    return found


@dataclass(frozen=True, slots=True)
class _Kept:
    """A program that keeps variables of one scope, and which."""

    code: str
    names: tuple[str, ...]
    of_function: bool


def _keep(code: str, function: str | None) -> _Kept | None:
    """The program, watched; `function` is what the test calls. None for what is no program."""
    tree = parse(code)
    if tree is None:
        return None
    try:
        names = () if function else _assigned(tree.body)
        if names:
            return _Kept(code, names, of_function=False)
        node = _called(tree, function) if function else _started(tree)
        if node is None:
            return _Kept(code, (), of_function=True)
        names = _assigned(node.body)
        head = 1 if is_text(node.body[0]) else 0  # a docstring stays the first
        last = ast.parse(f"{_LEFT}[0] = {_LOCALS}()").body
        if rest := node.body[head:]:
            node.body[head:] = [ast.Try(body=rest, handlers=[], orelse=[], finalbody=last)]
        put_first(tree, f"{_LEFT} = [{{}}]\n{_LOCALS} = locals")
        return _Kept(ast.unparse(tree), names, of_function=True)
    except RecursionError:
        return None


def _scope(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of one scope, in order; of a function, class or comprehension only itself."""
    for node in nodes:
        yield node
        if not isinstance(node, _SCOPES):
            yield from _scope(ast.iter_child_nodes(node))


def _assigned(body: Iterable[ast.AST]) -> tuple[str, ...]:
    """Names that a scope assigns, in the order of their first assignment."""
    names = [n.id for n in _scope(body) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return tuple(n for n in dict.fromkeys(names) if n != _OUTPUT and not n.startswith("_"))


def _functions(body: Iterable[ast.AST]) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in _scope(body) if isinstance(node, ast.FunctionDef)}


def _called(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """The function that a test calls: of the module, else of the class `Solution`."""
    classes = (node for node in _scope(tree.body) if isinstance(node, ast.ClassDef))
    methods = [_functions(one.body) for one in classes if one.name == "Solution"]
    return next((own[name] for own in (_functions(tree.body), *methods) if name in own), None)


def _started(tree: ast.Module) -> ast.FunctionDef | None:
    """The function of a whole program that its last statement calls."""
    calls = (node for one in tree.body[-1:] for node in ast.walk(one) if isinstance(node, ast.Call))
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    functions = _functions(tree.body)
    return next((functions[name] for name in names if name in functions), None)


def _watched(job: Job, kept: _Kept, test: GeneratedTest) -> Job:
    left = f"names.get({_LEFT!r}, [{{}}])[0]" if kept.of_function else "names"
    helpers = _HELPERS.format(values=_VALUES, names=kept.names, most=_MAX_CHARS)
    return watching(job, kept.code, [test], f"{_VALUES}({left})", helpers)


def _read(names: Sequence[str], outcome: Outcome) -> Variables | None:
    """The last variables of a report; None where it makes no sense."""
    (seen,) = outcome.observations_N
    value: Any = seen.value
    if seen.kind is not Ending.FINISHED or not isinstance(value, list):
        return None
    said_N = cast("list[Any]", value)
    if len(said_N) != len(names):
        return None
    found: list[tuple[str, str]] = []
    for name, said in zip(names, said_N, strict=True):
        match said:
            case []:
                pass
            case [one]:
                text = literal_text(one)
                if text is not None and len(text) <= _MAX_CHARS:
                    found.append((name, text))
            case _:
                return None
    return tuple(found[-_MOST:])
