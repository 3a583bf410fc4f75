"""Answers of a tester are read leniently, safely, and never as something that they do not say."""

from __future__ import annotations

import json

import pytest

from reward.verify.generated_tests import (
    CallTest,
    distinct_inputs,
    form_of,
    read_test,
    request_for_test,
)
from rl.problems.prompts import StdioCase
from rl.types import Message, Prompt

pytestmark = pytest.mark.unit

CALL = '[{"input": [1], "output": 1}]'
ASSERT = '{"assert": ["assert f(1) == 1"]}'
STDIO = '[{"input": "1", "output": "1"}]'


def problem(tests: str, entry_point: str | None = "f") -> Prompt:
    turns = (Message("system", "Be brief."), Message("user", "Solve the problem."))
    return Prompt(id="p", messages=turns, tests=tests, entry_point=entry_point)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nassert f([1, 2]) == 3\n```",
        "Here is a test:\n```\nassert f([1, 2]) == 3\n```\nIt adds.",
        "assert f([1, 2]) == 3",
        "  assert f([1, 2]) == 3, 'sum'",
        "```python\nassert 3 == f([1, 2])\n```",
        "```python\nf([1, 2]) == 3\n```",
        "```python\nassert Solution().f([1, 2]) == 3\n```",
        "```python\nassert candidate([1, 2]) == 3\n```",
        "```python\ndef test():\n    assert f([1, 2]) == 3\n```",
        "```python\nxs = [1, 2]\nassert f(xs) == 3\nassert f([1, 2]) == 3\n```",
        '```json\n{"input": [[1, 2]], "output": 3}\n```',
        'The case {"input": [[1, 2]], "output": 3} is enough.',
        "```python\r\nassert f([1, 2]) == 3\r\n```",
    ],
)
def test_a_call_is_read_in_many_forms(text: str) -> None:
    assert read_test(text, problem(CALL)) == CallTest("f", ([1, 2],), 3)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("assert f(1)", True),
        ("assert not f(1)", False),
        ("assert f(1) is None", None),
        ("assert f(1) == -2.5", -2.5),
        ("assert f(1) == (1, 'a')", (1, "a")),
    ],
)
def test_what_is_claimed_is_read(text: str, output: object) -> None:
    assert read_test(text, problem(CALL)) == CallTest("f", (1,), output)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot.",
        "assert f(...) == ...",  # the request's own words
        "assert g(1) == 2",
        "assert f(1) != 2",
        "assert f(1) < 2",
        "assert f(x=1) == 2",
        "assert f(n) == 2",
        "assert f(1) == g(1)",
        "assert f(1) == 1 == 1",
        "assert f(__import__('os').system('x')) == 2",
        "assert f(1) == {1, 2}",  # JSON has no sets
        "assert f({1: 2}) == 2",  # nor keys that are numbers
        "assert f(1) == ",
        '{"input": 1, "output": 2}',
        '{"input": [1]}',
        "assert f(" + "[" * 5000 + "]" * 5000 + ") == 1",
        "assert f(" + "-" * 9000 + "1) == 1",
        "assert f(" + "9" * 9000 + ") == 1",
        "{" * 20_000,
        '{"a":' * 5000,
    ],
)
def test_what_is_no_test_of_the_function_is_refused(text: str) -> None:
    assert read_test(text, problem(CALL)) is None


def test_values_that_only_python_knows_are_read_where_python_compares() -> None:
    assert read_test("assert f({1: 2}, (1,)) == {3}", problem(ASSERT, None)) == CallTest(
        "f", ({1: 2}, (1,)), {3}
    )
    assert read_test("assert len([1]) == 1", problem(ASSERT, None)) is None


@pytest.mark.parametrize(
    "text",
    [
        "```input\n1 2\n```\n```output\n3\n```",
        "**Test Input:**\n```\n1 2\n```\n**Test Output:**\n```\n3\n```",
        "Because:\n```output\n3\n```\nof\n```stdin\n1 2\n```",
        json.dumps({"input": "1 2\n", "output": "3\n"}),
    ],
)
def test_standard_input_and_output_are_read_in_many_forms(text: str) -> None:
    assert read_test(text, problem(STDIO, None)) == StdioCase("1 2\n", "3\n")


@pytest.mark.parametrize(
    "text",
    ["```input\n1\n```", "```input\n1\n```\n```output\n\n```", "```input\n1\n", "3", "```\n1\n```"],
)
def test_half_a_stdio_test_is_none(text: str) -> None:
    assert read_test(text, problem(STDIO, None)) is None


@pytest.mark.parametrize("part", ["```\n", "assert f(", '{"input": [', "`"])
def test_a_hostile_answer_of_any_length_is_read(part: str) -> None:
    for tests, entry_point in ((CALL, "f"), (STDIO, None)):
        assert read_test(part * 50_000, problem(tests, entry_point)) is None


def test_a_request_asks_for_a_test_in_the_form_of_the_problem() -> None:
    asked = request_for_test(problem(CALL))
    assert asked.id == "p" and asked.tests is None
    assert [m.role for m in asked.messages] == ["system", "user"]
    assert asked.question.startswith("Solve the problem.")
    assert "assert f(...) == ..." in asked.question
    assert "```output" in request_for_test(problem(STDIO, None)).question
    assert read_test(asked.question, problem(CALL)) is None
    assert [form_of(problem(t, "f")) for t in (CALL, ASSERT)] == ["call", "assert"]


def test_the_text_of_a_test_reads_back_as_the_test() -> None:
    test = CallTest("f", ([1, (2,)], "a\n'"), {"x": None})
    assert read_test(test.text, problem(ASSERT, None)) == test
    assert distinct_inputs([test, CallTest("f", test.args, 1), StdioCase("1", "2")]) == [0, 2]


def test_a_number_that_python_does_not_write_down_is_no_test():
    huge = "0x" + "f" * 4000
    assert read_test(f"assert f({huge}) == 1", problem(CALL)) is None
    assert read_test(f"assert f([1]) == {huge}", problem(ASSERT, None)) is None
