"""The matrix of programs and generated tests is what running them one by one shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from conf.errors import SandboxError
from reward.sandbox.pool import CallJob, Job, Outcome
from reward.sandbox.report import Ending, Observation
from reward.verify import matrix as execution_matrix
from reward.verify.generated_tests import CallTest
from reward.verify.matrix import execute_matrix
from reward.verify.verdict import Verifier
from rl.problems.prompts import StdioCase
from rl.types import Prompt

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(timeout_s=1.0) as made:
        yield made


def problem(tests: str, entry_point: str | None = None) -> Prompt:
    return Prompt(id="p", messages=(), tests=tests, entry_point=entry_point)


def test_calls_are_compared_as_the_tests_of_the_problem_are(verifier: Verifier) -> None:
    tests = [CallTest("f", ([1, 2],), 3), CallTest("f", ([],), 0), CallTest("f", ((2, 2),), (4,))]
    codes = [
        "def f(xs):\n    return sum(xs)",
        "",
        "def f(xs):\n    return (sum(xs),)",
        "def f(xs):\n    return xs[0] and sum(xs)",
        "def f(xs):\n    return sum(xs)",
    ]
    found = execute_matrix(verifier, problem('[{"input": [[1]], "output": 1}]', "f"), codes, tests)
    assert found.passed_NM.astype(int).tolist() == [
        [1, 1, 0],
        [0, 0, 0],
        [0, 0, 1],  # a tuple in a test stands for the list that JSON has
        [1, 0, 0],
        [1, 1, 0],
    ]
    assert found.outputs_NM.tolist() == [[0, 0, 0], [-1, -1, -1], [1, 1, 1], [0, -1, 0], [0, 0, 0]]
    assert found.num_programs == 3  # equal ones once, empty ones never


def test_asserted_calls_are_compared_as_python_does(verifier: Verifier) -> None:
    asserts = problem('{"assert": ["assert f(1) == 1"], "setup": "from typing import List"}')
    tests = [CallTest("f", ((1,),), (1,)), CallTest("f", ({2},), {2}), CallTest("g", (1,), 1)]
    codes = ["def f(x) -> List[int]:\n    return x", "def f(x):\n    return list(x)"]
    found = execute_matrix(verifier, asserts, codes, tests)
    assert found.passed_NM.astype(int).tolist() == [[1, 1, 0], [0, 0, 0]]
    assert found.outputs_NM.tolist() == [[0, 0, -1], [1, 1, -1]]


def test_programs_read_standard_input(verifier: Verifier) -> None:
    tests = [StdioCase("1", "2"), StdioCase("2\n", "2")]
    codes = ["print(int(input()) + 1)", "print(input(), '')", "while True: pass"]
    found = execute_matrix(verifier, problem('[{"input": "1", "output": "1"}]'), codes, tests)
    assert found.passed_NM.astype(int).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert found.outputs_NM.tolist() == [[0, 0], [1, 1], [-1, -1]]


def test_without_tests_nothing_runs() -> None:
    found = execute_matrix(Broken(), problem('[{"input": [1], "output": 1}]', "f"), ["x = 1"], [])
    assert found.passed_NM.shape == found.outputs_NM.shape == (1, 0)
    assert found.num_programs == 0


class Broken:
    """A sandbox that cannot run programs, the first `times` times."""

    def __init__(self, times: int = 100) -> None:
        self.times = times

    def observe(self, jobs_N: Sequence[Job]) -> list[Outcome]:
        self.times -= 1
        kind = Ending.SANDBOX_ERROR if self.times >= 0 else Ending.FINISHED
        assert all(isinstance(job, CallJob) for job in jobs_N)
        return [Outcome(observations_N=(Observation(kind, value=1),), seconds=0) for _ in jobs_N]


def test_a_program_that_could_not_be_run_is_tried_again_and_never_a_failed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution_matrix.time, "sleep", lambda _: None)
    prompt, tests = problem('[{"input": [1], "output": 1}]', "f"), [CallTest("f", (1,), 1)]
    assert execute_matrix(Broken(2), prompt, ["x = 1"], tests).passed_NM.all()
    with pytest.raises(SandboxError, match="1 of 1 programs"):
        execute_matrix(Broken(), prompt, ["x = 1"], tests)
