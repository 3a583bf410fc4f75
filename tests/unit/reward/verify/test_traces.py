"""Traces: what was seen is asked for, and an answer is right only when it is the same literal."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from conf.schema import ProblemLevel
from reward.verify.traces import is_right, read_trace, request_for_trace, run_traces
from reward.verify.verdict import Verifier
from rl.problems import branchy, minipy
from rl.problems.levels import make_prompts
from rl.problems.oracles import right_output
from rl.problems.prompts import FunctionalCase, watched_input
from rl.types import Prompt, Trace

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(timeout_s=1.0) as made:
        yield made


def problem(tests: str | None, entry_point: str | None = None) -> Prompt:
    return Prompt(id="p", messages=(), tests=tests, entry_point=entry_point)


def test_programs_are_watched_on_the_first_input_whatever_it_expects(verifier: Verifier) -> None:
    codes = [
        "def f(x):\n    return [x, True]",
        "",
        "def f(x):\n    raise ValueError",
        "def f(x):\n    while True: pass",
        "def f(x):\n    return {'a': (x, None)}",
        "def f(x):\n    return '7' * 5000",
        "def f(x):\n    return float('nan')",
    ]
    found = run_traces(verifier, problem('[{"input": [3], "output": 9}]', "f"), codes)
    assert [trace and (trace.input, trace.output) for trace in found] == [
        ("f(3)", "[3, True]"),
        None,
        None,
        None,
        ("f(3)", "{'a': (3, None)}"),
        None,  # too long to ask for
        None,  # no literal says it
    ]


def test_a_whole_program_is_watched_under_a_main_guard_too(verifier: Verifier) -> None:
    code = "def main():\n    print(int(input()) * 2)\n\nif __name__ == '__main__':\n    main()"
    (found,) = run_traces(verifier, problem('[{"input": "4", "output": "1"}]'), [code])
    assert found == Trace(code=code, input="4", output="8\n", is_stdio=True)


@pytest.mark.parametrize("tests", [None, '{"assert": ["assert helper(f) is f"], "setup": ""}'])
def test_without_a_test_that_states_an_input_there_is_no_trace(
    verifier: Verifier, tests: str | None
) -> None:
    assert run_traces(verifier, problem(tests, "f"), ["def f(x):\n    return x"]) == [None]


SEEN = Trace(code="def f():\n    return [1, True]", input="f()", output="[1, True]")
PRINTED = Trace(code="print(1)", input="3\n", output="1 \n2\n", is_stdio=True)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("kept = [1]\noutput = [1, True]", True),
        ("output = [1,True]", True),
        ("`output = [1, True]`", True),
        ("output = [1, 1]", False),  # True is not 1
        ("output = (1, True)", False),
        ("output = '[1, True]'", False),
        ("output = [1, True]\nNo: output = [2]", True),  # the last line that is one
        ("output = [1, True]\noutput = [2]", False),
        ("output = [True, 1]", False),
        ("output = __import__('os')", False),
        ("output = " + "[" * 3000, False),
    ],
)
def test_an_answer_is_right_when_it_is_the_literal_that_was_seen(answer: str, right: bool) -> None:
    found = read_trace(answer)
    assert found is not None
    assert is_right(found, SEEN) == right


@pytest.mark.parametrize(
    ("answer", "output", "right"),
    [
        ("{'b': 1, 'a': 2}", "{'a': 2, 'b': 1}", True),  # no order
        ("{2, 1}", "{1, 2}", True),
        ("{1: 'a'}", "{True: 'a'}", False),
        ("{1.0}", "{1}", False),
        ("1.0", "1", False),
        ("-0.0", "0.0", False),
    ],
)
def test_an_order_counts_where_python_has_one_and_a_type_always(
    answer: str, output: str, right: bool
) -> None:
    assert is_right(answer, Trace(code="", input="f()", output=output)) == right


def test_printed_text_is_compared_line_by_line() -> None:
    found = read_trace("It prints\n```output\n1\n2\n```\n")
    assert found is not None and is_right(found, PRINTED)
    other = read_trace("```output\n1\n3\n```")
    assert other is not None and not is_right(other, PRINTED)


def test_an_answer_that_states_nothing_is_none() -> None:
    assert read_trace("It is 3.") is None


@pytest.mark.parametrize("trace", [SEEN, PRINTED])
def test_the_request_shows_program_and_input_and_never_the_output(trace: Trace) -> None:
    question = request_for_trace(trace, "p#trace").question
    assert trace.code in question and trace.input.strip() in question
    assert "[1, True]" not in question.replace(trace.code, "")


@pytest.mark.parametrize("level", ["flat", "branchy"])
def test_traces_of_right_programs_are_what_the_oracle_says(
    verifier: Verifier, level: ProblemLevel
) -> None:
    for made in make_prompts(level, "eval", 6, 0):
        spec = (branchy.Spec if level == "branchy" else minipy.Spec).of(made)
        tests: list[dict[str, list[object]]] = json.loads(made.tests or "")
        inputs = watched_input(made)
        args = inputs.args if isinstance(inputs, FunctionalCase) else tests[0]["input"]
        (found,) = run_traces(verifier, made, [spec.program(random.Random(0))])
        right = right_output(made, args)
        assert found is not None and is_right(repr(right), found)
        assert not is_right(repr([right]), found)


def test_programs_are_watched_on_the_input_that_the_metadata_names(verifier: Verifier) -> None:
    code, tests = "def f(x, y):\n    return x + y", '[{"input": [3, 4], "output": 7}]'
    named = Prompt(
        id="p", messages=(), tests=tests, entry_point="f", meta='{"watched": [[1], [2]]}'
    )
    assert run_traces(verifier, named, [code]) == [
        Trace(code=code, input="f([1], [2])", output="[1, 2]")
    ]
    printed = Prompt(
        id="p", messages=(), meta='{"watched": "5"}', tests='[{"input":"","output":""}]'
    )
    (found,) = run_traces(verifier, printed, ["print(input() * 2)"])
    assert found is not None
    assert (found.input, found.output) == ("5", "55\n")
