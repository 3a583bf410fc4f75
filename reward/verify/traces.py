"""Traces: what a program was seen to do with an input, the question about it, and its answer.

The trace task of CodeRL+ (arXiv 2510.18471): given a program and its input, say what comes out. The
answer is hostile text: it is read with bounds, as a literal, and compared strictly (True is not 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reward.code.fences import fenced
from reward.sandbox.report import Ending
from reward.verify.comparison import literal_text, same_literal
from reward.verify.generated_tests import GeneratedTest, read_test
from reward.verify.matrix import Observing, inputs_of, observe_tests, watched_of
from reward.verify.variables import final_variables
from rl.problems.prompts import StdioCase
from rl.types import Message, Prompt, Trace

_MAX_CHARS = 4096  # of an output, and of an answer from its end

_CALL = """This program is given:

{code}

Say what `{input}` returns. The last line of the answer is `output = VALUE`."""
_CALL_VARIABLES = """This program is given:

{code}

Say what `{input}` returns, and what {names} of the function then hold. The answer ends with a line
for each:

{lines}
output = VALUE"""
_STDIO = """This program is given:

{code}

It reads this from standard input:

{input}

Say what it prints. The answer ends with a block:

```output
...
```"""
_STDIO_VARIABLES = """This program is given:

{code}

It reads this from standard input:

{input}

Say what {names} hold at its end, and what it prints. The answer has a line for each, and ends with
a block:

{lines}

```output
...
```"""


def run_traces(
    verifier: Observing, problem: Prompt, codes_G: Sequence[str], *, variables: bool = False
) -> list[Trace | None]:
    """What each program does with the input that the problem names, or that of its first test.

    With `variables` also what its last variables then hold. None for an empty program, one that did
    not end by itself, one whose result has no literal or is too long to ask for, and for problems
    where neither says an input.
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
    return _with_variables(verifier, problem, traces, test) if variables else traces


def _with_variables(
    verifier: Observing, problem: Prompt, traces: Sequence[Trace | None], test: GeneratedTest
) -> list[Trace | None]:
    """The traces with final variables; None where these are not known."""
    codes = [trace.code for trace in traces if trace]
    found = final_variables(verifier, problem, codes, test)
    known = [None if trace is None else found[trace.code] for trace in traces]
    return [
        None if trace is None or held is None else replace(trace, variables=held)
        for trace, held in zip(traces, known, strict=True)
    ]


def request_for_trace(trace: Trace, prompt_id: str) -> Prompt:
    """The question what a program does with an input.

    >>> trace = Trace(code="def f(x):\\n    return x", input="f(1)", output="1")
    >>> request_for_trace(trace, "a#trace").question.splitlines()[-1]
    'Say what `f(1)` returns. The last line of the answer is `output = VALUE`.'
    """
    code, given = fenced(trace.code.strip(), "python"), trace.input.rstrip("\n")
    names = [name for name, _ in trace.variables]
    asked = (
        (_STDIO_VARIABLES if names else _STDIO)
        if trace.is_stdio
        else (_CALL_VARIABLES if names else _CALL)
    ).format(
        code=code,
        input=fenced(given, "input") if trace.is_stdio else given,
        names=" and ".join(f"`{name}`" for name in names),
        lines="\n".join(f"{name} = VALUE" for name in names),
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


@dataclass(frozen=True, slots=True)
class Stated:
    """What an answer to a trace states, as text."""

    output: str | None
    variables: Mapping[str, str]

    @property
    def text(self) -> str:
        """As a record shows it: the variables, and then the output."""
        lines = [f"{name} = {value}" for name, value in self.variables.items()]
        return "\n".join([*lines, *([] if self.output is None else [self.output])])


def read_stated(text: str, trace: Trace) -> Stated | None:
    """The output and the asked variables that an answer states, or None where it states nothing.

    Of a variable the last line counts that gives it a value, outside of the printed output.
    """
    said = text[-_MAX_CHARS:].replace("\r\n", "\n")
    if trace.is_stdio:
        said = said.rpartition("```output")[0]
    names = [name for name, _ in trace.variables]
    found: dict[str, str] = {}
    for line in said.split("\n"):
        name, equals, value = line.strip().strip("`").partition("=")
        if equals and name.strip() in names:
            found[name.strip()] = value.strip()
    output = read_trace(text)
    if output is None and not found:
        return None
    return Stated(output, {name: found[name] for name in names if name in found})


def share_right(stated: Stated, trace: Trace) -> float:
    """The share of output and variables that an answer says as they were seen.

    >>> seen = Trace(code="", input="f()", output="3", variables=(("a", "1"), ("b", "[2]")))
    >>> share_right(Stated("3", {"a": "1", "b": "2"}), seen)
    0.6666666666666666
    """
    right = [stated.output is not None and is_right(stated.output, trace)]
    for name, value in trace.variables:
        right.append(name in stated.variables and same_literal(stated.variables[name], value))
    return sum(right) / len(right)


def is_right(answer: str, trace: Trace) -> bool:
    """Whether an answer is what was seen, strictly: the same literal of the same types.

    >>> seen = Trace(code="", input="f()", output="[1, True]")
    >>> is_right("[1,True]", seen), is_right("[1, 1]", seen), is_right("'[1, True]'", seen)
    (True, False, False)
    """
    if trace.is_stdio:
        return _lines(answer) == _lines(trace.output)
    return same_literal(answer, trace.output)


_STDIO_PROBLEM = Prompt(id="trace", messages=())


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().split("\n")]


def _input_of(test: GeneratedTest) -> str:
    if isinstance(test, StdioCase):
        return test.input
    return f"{test.name}({', '.join(map(repr, test.args))})"


def _as_output(value: Any, test: GeneratedTest) -> str | None:  # noqa: ANN401 - what a program returned
    """The literal of a result, or the printed text; None where it cannot be asked for."""
    text = str(value) if isinstance(test, StdioCase) else literal_text(value)
    return text if text and text.strip() and len(text) <= _MAX_CHARS else None
