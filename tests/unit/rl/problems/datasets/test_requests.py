"""What a request states is found in it again, whatever the statement says."""

from __future__ import annotations

import pytest

from rl.problems.datasets.requests import (
    bare_statement,
    completion_request,
    function_request,
    mbpp_request,
    stdio_request,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "statement",
    ["Add 1.", "Two\n\nparagraphs with {braces}, `code` and \\d+.", "Solve the problem below."],
)
def test_a_request_states_its_problem(statement: str) -> None:
    for request in (
        mbpp_request(statement, "assert f(1) == 2"),
        stdio_request(statement),
        stdio_request(statement, "import sys"),
        function_request(statement, "`f` and `g`"),
        function_request(statement, "`f`", "def f(x):\n    ..."),
        statement,
    ):
        assert bare_statement(request) == statement


def test_a_completion_is_its_own_statement() -> None:
    request = completion_request("f", "def f(x):\n    '''Add 1.'''")
    assert bare_statement(request) == request
