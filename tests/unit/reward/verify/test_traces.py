"""Traces: what was seen is asked for, and an answer is right only when it is the same literal."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from conf.schema import ProblemLevel
from reward.verify.traces import (
    is_right,
    read_stated,
    read_trace,
    request_for_trace,
    run_traces,
    share_right,
)
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


HELD = (("kept", "[1, True]"), ("n", "2"))
SEEN_HOLDING = replace(SEEN, variables=HELD)
PRINTED_HOLDING = replace(PRINTED, variables=HELD)


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("kept = [1, True]\nn = 2\noutput = [1, True]", 1.0),
        ("output = [1,True]\n`n = 2`\nkept = [1,True]", 1.0),  # in any order
        ("kept = [1, 1]\nn = 2\noutput = [1, True]", 2 / 3),  # True is not 1
        ("kept = [1, True]\nn = 2.0\noutput = 0", 1 / 3),
        ("n = 1\nn = 2\noutput = 0", 1 / 3),  # the last line that says it
        ("n = 2\nn = 1\noutput = 0", 0.0),
        ("m = 2", None),  # nothing that was asked
        ("n = 2", 1 / 3),
        ("output = [1, True]", 1 / 3),
        ("kept == [1, True]\nn is 2\noutput = 0", 0.0),
        ("kept = __import__('os')\noutput = 0", 0.0),
    ],
)
def test_each_asked_variable_counts_as_much_as_the_output(answer: str, share: float | None) -> None:
    stated = read_stated(answer, SEEN_HOLDING)
    assert (stated and share_right(stated, SEEN_HOLDING)) == share


def test_what_a_program_prints_is_no_variable() -> None:
    printed = replace(PRINTED, output="n = 2\n")
    asked = replace(printed, variables=(("n", "3"),))
    for answer, share in (
        ("n = 3\n```output\nn = 2\n```", 1.0),
        ("n = 2\n```output\nn = 2\n```", 0.5),
        ("```output\nn = 2\n```", 0.5),
        ("```output\nn = 3\n```", 0.0),
    ):
        stated = read_stated(answer, asked)
        assert stated is not None and share_right(stated, asked) == share


def test_a_record_shows_what_an_answer_states_variables_first() -> None:
    stated = read_stated("output = 7\nn = 2\nx = 1\nkept = ?", SEEN_HOLDING)
    assert stated is not None and stated.text == "kept = ?\nn = 2\n7"


@pytest.mark.parametrize("trace", [SEEN_HOLDING, PRINTED_HOLDING])
def test_the_request_names_the_variables_and_never_their_values(trace: Trace) -> None:
    question = request_for_trace(trace, "p#trace").question
    assert "`kept` and `n`" in question and "\nkept = VALUE\nn = VALUE\n" in question
    assert "[1, True]" not in question.replace(trace.code, "") and "= 2" not in question


@pytest.mark.parametrize("trace", [SEEN, PRINTED])
def test_a_trace_without_variables_is_asked_for_as_if_none_were_wanted(trace: Trace) -> None:
    assert request_for_trace(replace(trace, variables=()), "p") == request_for_trace(trace, "p")
    assert "VALUE\n" not in request_for_trace(trace, "p").question


def test_variables_are_watched_where_they_are_asked_for(verifier: Verifier) -> None:
    codes = [
        "def f(x):\n    y = x + 1\n    return y * 2",
        "def f(x):\n    return x",
        "",
        "def f(x):\n    y = 1\n    globals()['_codescaler_values'] = None\n    return y",
    ]
    asked = problem('[{"input": [3], "output": 9}]', "f")
    found = run_traces(verifier, asked, codes, variables=True)
    assert [trace and (trace.output, trace.variables) for trace in found] == [
        ("8", (("y", "4"),)),
        ("3", ()),
        None,
        None,  # what cannot be seen is not asked
    ]
    plain = run_traces(verifier, asked, codes)
    assert [trace and (trace.output, trace.variables) for trace in plain] == [
        ("8", ()),
        ("3", ()),
        None,
        ("1", ()),
    ]


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
