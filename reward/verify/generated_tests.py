"""Generated tests, written by a model: what it is asked, and how its answer is read.

An answer is hostile text: it is read with bounds, as data. Nothing of it is evaluated here, and
what its calls do is seen in the sandbox only (`reward.verify.matrix`). Of the problem's own
tests nothing but their form is used: whether a function is called or a program reads its input.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal, cast

from reward.code.extract import ExtractConfig, extract, python_validity
from reward.code.fences import fenced
from rl.problems.prompts import FunctionalTests, StdioCase, StdioTests, parse_tests
from rl.types import Message, Prompt

Form = Literal["call", "assert", "stdio"]  # call compares as JSON, assert as Python does

_MAX_CHARS = 16_384  # of an answer; what comes after is not read
_MAX_TRIES = 20  # places of one answer that may hold a test
_EXTRACT = ExtractConfig(rule="last_block", trivial_is_valid=True, deadline_s=60.0)
_ANY_NAME = "candidate"  # what HumanEval calls the function under test
_BUILTINS = frozenset(dir(builtins))

_REQUEST = "{question}\n\nDo not solve this problem. Write one test of a solution: {what}\n"
_ASSERT = (
    "one call of {name} and the value that it must return.\n"
    "```python\nassert {call}(...) == ...\n```"
)
_STDIO = (
    "what it reads from standard input, and what it must then print.\n"
    "```input\n...\n```\n```output\n...\n```"
)
# With what may stand before it in a list, a quotation or a block of one line.
_ASSERT_WORD = re.compile(r"(?:^[ \t\d.)>*`-]*|;[ \t]*)(assert\b)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)")
_INPUT_TAGS = frozenset(["input", "stdin", "in", "test_input"])
_OUTPUT_TAGS = frozenset(["output", "stdout", "out", "test_output", "expected"])


@dataclass(frozen=True, slots=True)
class CallTest:
    """A function called with `args` must return `output`; all are Python literals."""

    name: str
    args: tuple[Any, ...]
    output: Any

    @property
    def text(self) -> str:
        """As an assert statement.

        >>> CallTest("f", ([1, 2],), 3).text
        'assert f([1, 2]) == 3'
        """
        return f"assert {self.name}({', '.join(map(repr, self.args))}) == {self.output!r}"


GeneratedTest = CallTest | StdioCase

_TOO_LONG = 10**4300


def text_of(test: GeneratedTest) -> str:
    """A test as a record shows it: an assert statement, or the two texts as JSON."""
    return test.text if isinstance(test, CallTest) else json.dumps(asdict(test))


def form_of(prompt: Prompt) -> Form:
    """What a test of this problem looks like.

    >>> form_of(Prompt(id="a", messages=(), entry_point="f")), form_of(Prompt(id="b", messages=()))
    ('call', 'stdio')
    """
    if prompt.tests is None:
        return "call" if prompt.entry_point else "stdio"
    tests = parse_tests(prompt.tests, prompt.entry_point)
    if isinstance(tests, StdioTests):
        return "stdio"
    return "call" if isinstance(tests, FunctionalTests) else "assert"


def request_for_test(prompt: Prompt, program: str = "") -> Prompt:
    """The same problem, asked for one test in place of a program (after CURE, 2506.03136).

    A `program` is shown beside it, as a verifier sees it that tests what was written (Sol-Ver).

    >>> problem = Prompt(
    ...     id="a", messages=(Message("user", "Add."),), tests='[{"input": "1", "output": "1"}]'
    ... )
    >>> request_for_test(problem).question.splitlines()[0]
    'Add.'
    """
    name = prompt.entry_point
    what = (
        _STDIO
        if form_of(prompt) == "stdio"
        else _ASSERT.format(name=f"`{name}`" if name else "the function", call=name or "function")
    )
    question = prompt.question.strip()
    if program:
        question += f"\n\nThis program may solve it:\n{fenced(program, 'python')}"
    asked = _REQUEST.format(question=question, what=what)
    last = max(i for i, message in enumerate(prompt.messages) if message.role == "user")
    turns = (*prompt.messages[:last], Message("user", asked))
    return replace(prompt, messages=turns, tests=None, meta="{}")


def read_test(text: str, prompt: Prompt) -> GeneratedTest | None:
    """The first test in an answer, or None. Lenient about its form, never about its meaning.

    A function's test is `assert f(ARGS) == VALUE` with literals on both sides (also bare, turned
    round, with `is`, `not` or nothing), in a block or on a line of its own, or a JSON object with
    "input" (the list of arguments) and "output". A program's is a block of input and one of output,
    or such an object with texts. Another function than the problem's entry point is no test of it.

    >>> tests = '[{"input": [1], "output": 1}]'
    >>> problem = Prompt(id="a", messages=(), tests=tests, entry_point="f")
    >>> read_test("Sure: ```assert f(2) == 4```\\nassert f(3) == 9", problem).text
    'assert f(3) == 9'
    """
    return next(read_tests(text, prompt), None)


def read_tests(text: str, prompt: Prompt) -> Iterator[GeneratedTest]:
    """The tests in an answer, read as `read_test` does; one may be found twice."""
    text = text[:_MAX_CHARS].replace("\r\n", "\n")
    form = form_of(prompt)
    if form == "stdio":
        yield from _stdio_tests(text)
        return
    candidates = (*_asserted(text, prompt.entry_point), *_json_calls(text, prompt.entry_point))
    yield from (test for test in candidates if _is_said(test, form))


def read_asserts(text: str, prompt: Prompt) -> Iterator[CallTest | str]:
    """Every assert that begins a line of an answer, or follows a semicolon there.

    As the test that it is, or as its text where it is none of this problem that can be read.
    """
    lines = text[:_MAX_CHARS].replace("\r\n", "\n").split("\n")
    for index, line in enumerate(lines):
        for match in _ASSERT_WORD.finditer(line):
            first = line[match.start(1) :]
            yield _test_or_text([first, *lines[index + 1 : index + _MAX_TRIES]], prompt)


def _test_or_text(lines: Sequence[str], prompt: Prompt) -> CallTest | str:
    """The assert that begins in the first of these lines, and may end in a later one."""
    for num in range(1, len(lines) + 1):
        source = "\n".join(lines[:num])
        if python_validity(source, _EXTRACT).valid:
            node = ast.parse(source).body[0]
            test = _call_test(node, prompt.entry_point)
            is_read = test is not None and _is_said(test, form_of(prompt))
            return test if test and is_read else ast.unparse(node)
    return lines[0].strip()


def _is_said(test: CallTest, form: Form) -> bool:
    """Whether its values can be written down in the form of the problem's tests."""
    return _is_sayable(test) and (form == "assert" or _is_json([test.args, test.output]))


def _is_sayable(test: CallTest) -> bool:
    """Whether its values can be written down: the sandbox's Python refuses 4,301 digits."""
    try:
        return _has_short_integers((test.args, test.output)) and bool(repr(test))
    except (ValueError, RecursionError):
        return False


def _has_short_integers(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) < _TOO_LONG
    if isinstance(value, dict):
        return all(map(_has_short_integers, cast("dict[object, object]", value).items()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_has_short_integers, cast("Iterable[object]", value)))
    return True


def distinct_inputs(tests_M: Sequence[GeneratedTest]) -> list[int]:
    """Indices of the tests whose input no earlier one has.

    >>> distinct_inputs([CallTest("f", (1,), 2), CallTest("f", (1,), 3), CallTest("f", (2,), 3)])
    [0, 2]
    """
    first: dict[str, int] = {}
    for index, test in enumerate(tests_M):
        given = test.input if isinstance(test, StdioCase) else f"{test.name}{test.args!r}"
        first.setdefault(given, index)
    return list(first.values())


# ---------------------------------------------------------------- functions


def _asserted(text: str, entry_point: str | None) -> Iterator[CallTest]:
    block = extract(text, _EXTRACT)
    lines = (line.strip() for line in text.split("\n"))
    single = islice((line for line in lines if line.startswith("assert ")), _MAX_TRIES)
    for source in (block.code, *single):
        if not python_validity(source, _EXTRACT).valid:
            continue
        for node in islice(ast.walk(ast.parse(source)), 10 * _MAX_TRIES):
            test = _call_test(node, entry_point)
            if test is not None:
                yield test


def _call_test(node: ast.AST, entry_point: str | None) -> CallTest | None:
    match node:
        case ast.Assert(test=claim) | ast.Expr(value=ast.Compare() as claim):
            pass
        case _:
            return None
    if any(isinstance(part, ast.Constant) and part.value is ... for part in ast.walk(claim)):
        return None  # the request's own placeholder
    match claim:
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[right]):
            sides = [(left, right), (right, left)]
        case ast.UnaryOp(op=ast.Not(), operand=call):
            sides = [(call, ast.Constant(False))]
        case _:
            sides = [(claim, ast.Constant(True))]
    for call, value in sides:
        if isinstance(call, ast.Call) and not call.keywords:
            name = _called(call, entry_point)
            try:
                args = tuple(ast.literal_eval(arg) for arg in call.args)
                output = ast.literal_eval(value)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
            if name is not None:
                return CallTest(name, args, output)
    return None


def _called(call: ast.Call, entry_point: str | None) -> str | None:
    match call.func:
        case ast.Name(id=name):
            pass
        case ast.Attribute(attr=name):
            if entry_point is None:
                return None
        case _:
            return None
    if entry_point is None:
        return None if name in _BUILTINS else name
    return entry_point if name in (entry_point, _ANY_NAME) else None


def _json_calls(text: str, entry_point: str | None) -> Iterator[CallTest]:
    for value in _json_objects(text):
        args = value.get("input")
        if entry_point is not None and isinstance(args, list) and "output" in value:
            yield CallTest(entry_point, tuple(cast("list[Any]", args)), value["output"])


def _is_json(value: object) -> bool:
    """Whether JSON says the same of it; a tuple counts as a list, as it does in tests."""
    match value:
        case None | bool() | int() | float() | str():
            return True
        case list() | tuple():
            return all(map(_is_json, cast("Sequence[object]", value)))
        case dict():
            items = cast("dict[object, object]", value)
            return all(isinstance(key, str) and _is_json(item) for key, item in items.items())
        case _:
            return False


def _json_objects(text: str) -> Iterator[Mapping[str, Any]]:
    decoder = json.JSONDecoder()
    for match in islice(re.finditer(r"\{", text), _MAX_TRIES):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield cast("dict[str, Any]", value)


# ---------------------------------------------------------------- programs


def _stdio_tests(text: str) -> Iterator[StdioCase]:
    blocks = list(islice(_blocks(text), _MAX_TRIES))
    inputs = [content for tag, content in blocks if tag in _INPUT_TAGS]
    outputs = [content for tag, content in blocks if tag in _OUTPUT_TAGS]
    if not (inputs or outputs) and len(blocks) > 1:  # CURE's form: two blocks without a tag
        inputs, outputs = [blocks[0][1]], [blocks[1][1]]
    if inputs and outputs and outputs[0].strip():
        yield StdioCase(inputs[0], outputs[0])
    for value in _json_objects(text):
        given, expected = value.get("input"), value.get("output")
        if isinstance(given, str) and isinstance(expected, str) and expected.strip():
            yield StdioCase(given, expected)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Tag and content of the fenced blocks that are closed."""
    opening: re.Match[str] | None = None
    content: list[str] = []
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if opening is None:
            opening, content = fence, []
        elif fence is not None and line.strip() == opening[1]:
            yield opening[2].lower(), "".join(f"{kept}\n" for kept in content)
            opening = None
        else:
            content.append(line)
