"""Traces: what a program was seen to do with an input, the question about it, and its answer.

The trace task of CodeRL+ (arXiv 2510.18471): given a program and its input, say what comes out. The
answer is hostile text: it is read with bounds, as a literal, and compared strictly (True is not 1).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, cast

from reward.code.fences import fenced
from reward.sandbox.report import Ending
from reward.verify.generated_tests import GeneratedTest, read_test
from reward.verify.matrix import Observing, inputs_of, observe_tests, watched_of
from rl.problems.prompts import StdioCase
from rl.types import Message, Prompt, Trace

_MAX_CHARS = 4096  # of an output, and of an answer from its end

_CALL = """This program is given:

{code}

Say what `{input}` returns. The last line of the answer is `output = VALUE`."""
_STDIO = """This program is given:

{code}

It reads this from standard input:

{input}

Say what it prints. The answer ends with a block:

```output
...
```"""


def run_traces(verifier: Observing, problem: Prompt, codes_G: Sequence[str]) -> list[Trace | None]:
    """What each program does with the input that the problem names, or that of its first test.

    None for an empty program, one that did not end by itself, one whose result has no literal or is
    too long to ask for, and for problems where neither says an input.
    """
    tests = watched_of(problem) or inputs_of(problem, most=1)
    if not tests:
        return [None] * len(codes_G)
    seen = observe_tests(verifier, problem, codes_G, tests)
    (test,) = tests
    traces: list[Trace | None] = []
    for code in codes_G:
        observations = seen.get(code, ())
        ended = bool(observations) and observations[0].kind is Ending.FINISHED
        output = _as_output(observations[0].value, test) if ended else None
        found = None
        if output is not None:
            is_stdio = isinstance(test, StdioCase)
            found = Trace(code=code, input=_input_of(test), output=output, is_stdio=is_stdio)
        traces.append(found)
    return traces


def request_for_trace(trace: Trace, prompt_id: str) -> Prompt:
    """The question what a program does with an input.

    >>> trace = Trace(code="def f(x):\\n    return x", input="f(1)", output="1")
    >>> request_for_trace(trace, "a#trace").question.splitlines()[-1]
    'Say what `f(1)` returns. The last line of the answer is `output = VALUE`.'
    """
    code, given = fenced(trace.code.strip(), "python"), trace.input.rstrip("\n")
    asked = (
        _STDIO.format(code=code, input=fenced(given, "input"))
        if trace.is_stdio
        else _CALL.format(code=code, input=given)
    )
    return Prompt(id=prompt_id, messages=(Message("user", asked),))


def read_trace(text: str) -> str | None:
    """The output that an answer states, or None.

    >>> read_trace("kept = [1, 2]\\noutput = [2, 4]"), read_trace("It is 3.")
    ('[2, 4]', None)
    """
    text = text[-_MAX_CHARS:].replace("\r\n", "\n")
    lines = [line.strip() for line in text.split("\n")]
    for line in reversed(lines):
        name, equals, value = line.strip("`").partition("=")
        if equals and name.strip() == "output":
            return value.strip()
    found = read_test(f"```input\n\n```\n{text}", _STDIO_PROBLEM)
    return found.output if isinstance(found, StdioCase) else None


def is_right(answer: str, trace: Trace) -> bool:
    """Whether an answer is what was seen, strictly: the same literal of the same types.

    >>> seen = Trace(code="", input="f()", output="[1, True]")
    >>> is_right("[1,True]", seen), is_right("[1, 1]", seen), is_right("'[1, True]'", seen)
    (True, False, False)
    """
    if trace.is_stdio:
        return _lines(answer) == _lines(trace.output)
    found = _literal(answer)
    return found is not None and found == _literal(trace.output)


def _literal(text: str) -> str | None:
    """One text for each Python literal, so that types count and the order of a set does not."""
    try:
        return _written(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _written(value: object) -> str:
    match value:
        case list():
            return f"list({', '.join(map(_written, cast('list[object]', value)))})"
        case tuple():
            return f"tuple({', '.join(map(_written, cast('tuple[object, ...]', value)))})"
        case set():
            return f"set({', '.join(sorted(map(_written, cast('set[object]', value))))})"
        case dict():
            pairs = cast("dict[object, object]", value).items()
            return f"dict({', '.join(sorted(f'{_written(k)}: {_written(v)}' for k, v in pairs))})"
        case _:
            return repr(value)


_STDIO_PROBLEM = Prompt(id="trace", messages=())


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().split("\n")]


def _input_of(test: GeneratedTest) -> str:
    if isinstance(test, StdioCase):
        return test.input
    return f"{test.name}({', '.join(map(repr, test.args))})"


def _as_output(value: Any, test: GeneratedTest) -> str | None:  # noqa: ANN401 - what a program returned
    """The literal of a result, or the printed text; None where it cannot be asked for."""
    text = str(value) if isinstance(test, StdioCase) else repr(value)
    if not text.strip() or len(text) > _MAX_CHARS:
        return None
    return text if isinstance(test, StdioCase) or _literal(text) is not None else None
