"""The matrix of programs and generated tests is what running them one by one shows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from conf.errors import SandboxError
from conf.schema import ProblemLevel
from reward.sandbox.pool import CallJob, Job, Outcome
from reward.sandbox.report import Ending, Observation
from reward.verify import matrix as execution_matrix
from reward.verify.generated_tests import CallTest, GeneratedTest
from reward.verify.matrix import execute_matrix, is_right_test
from reward.verify.verdict import Verifier
from rl.problems import branchy, minipy
from rl.problems.levels import make_prompts
from rl.problems.oracles import right_output
from rl.problems.prompts import StdioCase
from rl.recipes.cure import figures_of_tests
from rl.types import Evidence, JudgedGroup, JudgeKind, Prompt, Task
from tests.unit.rl.fakes import make_group, make_judged

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


LEVELS: tuple[ProblemLevel, ...] = ("flat", "branchy")


def right_programs(problem: Prompt, rng: random.Random) -> list[str]:
    spec = (branchy.Spec if "level" in json.loads(problem.meta) else minipy.Spec).of(problem)
    return [spec.program(rng) for _ in range(3)]


@pytest.mark.parametrize("level", LEVELS)
def test_right_programs_pass_what_the_oracle_calls_right_and_no_other_test(
    verifier: Verifier, level: ProblemLevel
) -> None:
    rng = random.Random(0)
    num_right = num_wrong = 0
    for problem in make_prompts(level, "eval", 12, 0):
        lists = [[rng.randint(-9, 18) for _ in range(rng.randrange(4))] for _ in range(12)]
        tests = [CallTest("f", (xs,), right_output(problem, [xs])) for xs in lists]
        tests += [CallTest("f", (xs,), rng.randint(-5, 20)) for xs in lists]
        seen = execute_matrix(verifier, problem, right_programs(problem, rng), tests).passed_NM
        by_oracle = [is_right_test(problem, test) for test in tests]
        assert [row.tolist() for row in seen] == [by_oracle] * 3
        num_right += by_oracle.count(True)
        num_wrong += by_oracle.count(False)
    assert num_right > 60 and num_wrong > 60


@pytest.mark.parametrize("level", LEVELS)
def test_the_figures_of_tests_are_those_of_the_oracle(
    verifier: Verifier, level: ProblemLevel
) -> None:
    rng = random.Random(1)
    groups: list[JudgedGroup] = []
    by_oracle: list[bool | None] = []
    for problem in make_prompts(level, "eval", 8, 1):
        codes = [*right_programs(problem, rng), "def f(xs):\n    return 0"]
        lists = [[rng.randint(-9, 18) for _ in range(3)] for _ in range(8)]
        outputs = [rng.choice([right_output(problem, [xs]), 3]) for xs in lists]
        tests = [CallTest("f", (xs,), out) for xs, out in zip(lists, outputs, strict=True)]
        by_oracle += [is_right_test(problem, test) for test in tests]
        seen = execute_matrix(verifier, problem, codes, tests).passed_NM
        programs = make_judged(
            make_group(problem, 4), [1.0, 1.0, 1.0, 0.0], [True, True, True, False]
        )
        written = make_judged(make_group(problem, 8), [0.0] * 8)
        ask = replace(written.group.ask, task=Task.TEST)
        groups.append(programs)
        groups.append(
            replace(
                written,
                group=replace(written.group, ask=ask),
                judge=JudgeKind.MATRIX,
                evidence=Evidence(passed_NM=seen),
            )
        )
    assert figures_of_tests(groups)["right"] == by_oracle.count(True) / len(by_oracle)
    assert 0 < by_oracle.count(True) < len(by_oracle)


@pytest.mark.parametrize(
    "test",
    [CallTest("f", ([1.5],), 1), CallTest("f", ("a",), 1), CallTest("f", (), 1), StdioCase("", "")],
)
def test_of_a_test_that_the_problem_says_nothing_of_the_oracle_says_nothing(
    test: GeneratedTest,
) -> None:
    (made,) = make_prompts("flat", "eval", 1, 0)
    assert is_right_test(made, test) is None
    assert is_right_test(replace(made, meta="{}"), CallTest("f", ([1],), 1)) is None
