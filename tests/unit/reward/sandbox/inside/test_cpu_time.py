"""Time: what is a program's own, which limit ran out, and that a busy machine changes nothing."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from conf.errors import DataError
from reward.sandbox.pool import AssertJob, CallJob, Job, Limits, Outcome, Sandbox, StdioJob
from reward.sandbox.report import Ending
from reward.verify.verdict import Program, Verifier
from rl.problems.prompts import parse_tests, time_limit_of
from rl.types import Prompt, Verdict

pytestmark = pytest.mark.unit

_LIMIT_S = 1.0
_BUSY = """
import time
def f(x):
    end = time.process_time() + x
    while time.process_time() < end: pass
    return x
"""
_SLEEP = "import time\ndef f(x):\n    time.sleep(x)\n    return x"
_POOL = f"from multiprocessing import Pool\n{_BUSY}\nwith Pool(2) as p: print(p.map(f, [0.3, 0.3]))"
_THREADS = (
    f"from threading import Thread\n{_BUSY}\nts = [Thread(target=f, args=(0.3,)) for _ in '12']\n"
    "for t in ts: t.start()\nfor t in ts: t.join()\nprint(1)"
)
_CHILDREN = f"import os\n{_BUSY}\nfor _ in range(3):\n    if os.fork() == 0: f(9)\nf(9)"
_JOBS: dict[str, tuple[Job, list[Ending]]] = {
    "computes within its limit": (
        CallJob(code=_BUSY, entry_point="f", args_N=((0.6,), (0.6,), (0.01,), (0.6,))),
        [Ending.FINISHED] * 4,
    ),
    "computes beyond its limit": (
        CallJob(code=_BUSY, entry_point="f", args_N=((0.1,), (1.8,), (0.1,))),
        [Ending.FINISHED, Ending.TIMEOUT, Ending.FINISHED],
    ),
    "sleeps within its limit": (
        CallJob(code=_SLEEP, entry_point="f", args_N=((0.5,),)),
        [Ending.FINISHED],
    ),
    "sleeps beyond its limit": (
        CallJob(code=_SLEEP, entry_point="f", args_N=((1.5,),)),
        [Ending.TIMEOUT],
    ),
    "a script that computes": (
        StdioJob(code=f"{_BUSY}\nprint(f(float(input())))", stdins_N=("0.6", "1.8")),
        [Ending.FINISHED, Ending.TIMEOUT],
    ),
    "processes that compute": (StdioJob(code=_POOL, stdins_N=("",)), [Ending.FINISHED]),
    "threads that compute": (StdioJob(code=_THREADS, stdins_N=("",)), [Ending.FINISHED]),
    "children that never end": (StdioJob(code=_CHILDREN, stdins_N=("",)), [Ending.TIMEOUT]),
    "a script that stops itself": (
        StdioJob(code="import os\nos.kill(os.getpid(), 19)", stdins_N=("",)),
        [Ending.TIMEOUT],
    ),
    "one that serves others first": (
        StdioJob(code=f"import os\nos.nice(19)\n{_BUSY}\nf(9)", stdins_N=("",)),
        [Ending.TIMEOUT],
    ),
    "asserts": (
        AssertJob(code=_BUSY, imports="", setup="", asserts_N=("f(0.5) == 0.5", "f(1.8) == 1.8")),
        [Ending.FINISHED, Ending.TIMEOUT],
    ),
}


@contextlib.contextmanager
def _load(num: int) -> Iterator[None]:
    """Run busy processes beside, as a machine with other work does."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize("num_busy", [0, 8])
def test_a_busy_machine_changes_no_verdict(num_busy: int) -> None:
    with _load(num_busy), Sandbox(limits=Limits(wall_s=_LIMIT_S)) as sandbox:
        outcomes = sandbox.run([job for job, _ in _JOBS.values()])
    kinds = {
        name: [seen.kind for seen in outcome.observations_N]
        for name, outcome in zip(_JOBS, outcomes, strict=True)
    }
    assert kinds == {name: expected for name, (_, expected) in _JOBS.items()}


def _run(job: Job, limits: Limits) -> Outcome:
    with Sandbox(limits=limits) as sandbox:
        return sandbox.run([job])[0]


def test_the_cause_is_the_limit_of_the_test_or_the_budget_of_all() -> None:
    limits = Limits(wall_s=0.5, total_s=0.8)
    one = _run(CallJob(code=_SLEEP, entry_point="f", args_N=((9,),)), limits)
    assert one.observations_N[0].detail == "above 0.5 s, the limit of one test"
    for job in (
        CallJob(code=_SLEEP, entry_point="f", args_N=((0.3,),) * 5),
        StdioJob(code=f"{_SLEEP}\nf(0.3)", stdins_N=("",) * 5),
    ):
        seen = _run(job, limits).observations_N
        assert seen[0].kind is Ending.FINISHED
        assert {one.kind for one in seen[3:]} == {Ending.TIMEOUT}
        assert {one.detail for one in seen[3:]} == {"above 0.8 s, the budget of all tests together"}
    own = CallJob(code=_SLEEP, entry_point="f", args_N=((9,),), time_limit_s=0.25)
    detail = _run(own, limits).observations_N[0].detail
    assert detail == "above 0.25 s, the problem's time_limit"


@pytest.mark.parametrize(
    ("num_tests", "time_limit_s", "expected"),
    [(1, None, 60.0), (15, None, 60.0), (30, None, 120.0), (100, None, 400.0), (15, 8.0, 120.0),
     (30, 2.0, 120.0)],
)  # fmt: skip
def test_the_budget_grows_with_the_tests_and_their_limit(
    num_tests: int, time_limit_s: float | None, expected: float
) -> None:
    limits = Limits(wall_s=4.0, total_s=60.0)
    assert limits.of_all(num_tests, time_limit_s) == expected
    assert num_tests * limits.of_test(time_limit_s) <= limits.of_all(num_tests, time_limit_s)


def test_many_slow_tests_of_a_right_program_all_run() -> None:
    limits = Limits(wall_s=0.2, total_s=3.0)
    job = CallJob(code=_SLEEP, entry_point="f", args_N=((0.08,),) * 50)
    assert _run(job, limits).kind is Ending.FINISHED


def _tests(form: str, **fields: object) -> str:
    body: dict[str, object] = {
        "stdio": {"cases": [{"input": "", "output": "1"}]},
        "calls": {"cases": [{"input": [], "output": 1}]},
        "asserts": {"assert": ["assert f() == 1"]},
    }[form]  # pyright: ignore[reportAssignmentType]
    return json.dumps(body | fields)


@pytest.mark.parametrize("form", ["stdio", "calls", "asserts"])
def test_a_problem_has_its_own_limit(form: str) -> None:
    code = "import time\ndef f():\n    time.sleep(0.8)\n    return 1\n"
    code += "print(f())" if form == "stdio" else ""
    entry_point = "f" if form == "calls" else None
    with Verifier(timeout_s=0.5) as verifier:
        judged = verifier.verify(
            [
                Program(code, _tests(form), entry_point),
                Program(code, _tests(form, time_limit=20), entry_point),
                Program(code, _tests(form), entry_point, time_limit=20.0),
                Program(code, _tests(form, time_limit=20), entry_point, time_limit=0.4),
                Program(code, _tests(form, time_limit=0.4), entry_point, time_limit=20.0),
            ]
        )
    assert [judgement.verdict for judgement in judged] == [
        Verdict.TIMEOUT,
        Verdict.PASSED,
        Verdict.PASSED,
        Verdict.PASSED,
        Verdict.TIMEOUT,
    ]
    assert judged[-1].detail == "above 0.4 s, the problem's time_limit"


@pytest.mark.parametrize("value", [0, -1, True, "2", [1], 1e9, float("nan")])
def test_a_time_limit_is_a_number_of_seconds(value: object) -> None:
    with pytest.raises(DataError, match="time_limit"):
        parse_tests(_tests("stdio", time_limit=value), None)
    with pytest.raises(DataError, match=r"meta.*time_limit"):
        time_limit_of(Prompt(id="a", messages=(), meta=json.dumps({"time_limit": value})))
