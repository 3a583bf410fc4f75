"""Verdicts: right programs pass, wrong ones fail, and no program can talk its way through."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from conf.errors import DataError
from reward.verify.comparison import same_output, same_value
from reward.verify.verdict import Program, ProgramResult, Verifier
from rl.types import Verdict

pytestmark = pytest.mark.unit

_DOUBLE = json.dumps([{"input": [x], "output": 2 * x} for x in (3, 5, -7)])
_STDIO = json.dumps([{"input": "1 2\n", "output": "3\n"}, {"input": "4 5", "output": "9"}])
_ASSERTS = json.dumps({"assert": ["assert f(3) == 6", "assert f(0) == 0"], "setup": ""})


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=3.0) as verifier:
        yield verifier


def _judge(
    verifier: Verifier, code: str, tests: str = _DOUBLE, entry: str | None = "f"
) -> ProgramResult:
    return verifier.verify([Program(code, tests, entry)])[0]


def _asserts(*asserts: str, setup: str = "") -> str:
    return json.dumps({"assert": asserts, "setup": setup})


@pytest.mark.parametrize(
    ("code", "verdict", "num_passed"),
    [
        ("def f(x): return 2 * x", Verdict.PASSED, 3),
        ("class Solution:\n    def f(self, x): return 2 * x", Verdict.PASSED, 3),
        ("def f(x): return abs(2 * x)", Verdict.WRONG_ANSWER, 2),
        ("def f(x): return 2.0 * x", Verdict.WRONG_ANSWER, 0),
        ("def f(x): print(2 * x)", Verdict.WRONG_ANSWER, 0),
        ("def f(x): return 2 * x if x > 0 else 1 / 0", Verdict.RUNTIME_ERROR, 2),
        ("def g(x): return 2 * x", Verdict.RUNTIME_ERROR, 0),
        ("def f(x):\n    while x == 5: pass\n    return 2 * x", Verdict.TIMEOUT, 2),
        ("def f(x): return [0] * (1 << 40)", Verdict.MEMORY, 0),
        ("def f(x):\n    while True: print('x' * 99999)", Verdict.OUTPUT_LIMIT, 0),
        ("", Verdict.NO_CODE, 0),
        (" \n\t", Verdict.NO_CODE, 0),
    ],
)
def test_the_first_test_that_fails_decides(
    verifier: Verifier, code: str, verdict: Verdict, num_passed: int
) -> None:
    judgement = _judge(verifier, code)
    assert (judgement.verdict, judgement.num_passed, judgement.num_tests) == (
        verdict,
        num_passed,
        3,
    )
    assert judgement.passed is (verdict is Verdict.PASSED)


_FORGERIES = {
    "object equal to everything": """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = None
def f(x): return Yes()
""",
    "number equal to everything": """
class Yes(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def f(x): return Yes(1)
""",
    "list equal to everything": """
class Yes(list):
    def __eq__(self, other): return True
    def __iter__(self): return iter([6])
    def __len__(self): return 1
def f(x): return Yes()
""",
    "walk the frames for what is expected": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for scope in (frame.f_locals, frame.f_globals):
            for name in ("expected", "expected_output", "outputs", "output", "want", "gold"):
                if name in scope:
                    return scope[name]
            for value in list(scope.values()):
                if isinstance(value, dict) and "output" in value:
                    return value["output"]
        frame = frame.f_back
""",
    "search the memory for what is expected": """
import gc
def f(x):
    for value in gc.get_objects():
        if type(value) is dict and x in value.get("input", ()) and "output" in value:
            return value["output"]
""",
    "write the verdict on every descriptor": """
import os
for fd in range(64):
    for line in (b'PASSED\\n', b'{"passed": true}\\n', b'["value", true]\\n'):
        try: os.write(fd, line)
        except OSError: pass
def f(x): return None
""",
    "print the verdict": "print('PASSED')\ndef f(x): print('PASSED'); return 'PASSED'",
    "leave with success at load": "import os; os._exit(0)",
    "leave with success in the call": "import os\ndef f(x): os._exit(0)",
    "sys.exit": "import sys\ndef f(x): sys.exit(0)",
    "raise what is caught": "def f(x): raise SystemExit",
    "replace the harness": """
import sys, json, builtins
for module in list(sys.modules.values()):
    for name in dir(module):
        if "report" in name or "observe" in name or "same" in name:
            try: setattr(module, name, lambda *a, **k: True)
            except Exception: pass
json.dumps = lambda *a, **k: '["value", true]'
builtins.isinstance = lambda *a: True
def f(x): return True
""",
    "cover the tracks of a child": """
import os
if os.fork() == 0:
    os.setsid()
    import time; time.sleep(60)
def f(x): return 0
""",
}


@pytest.mark.parametrize("name", _FORGERIES)
def test_a_forged_program_does_not_pass(verifier: Verifier, name: str) -> None:
    judgement = _judge(verifier, _FORGERIES[name])
    assert judgement.verdict in (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR)
    assert judgement.num_passed == 0


@pytest.mark.parametrize(
    "name",
    [
        "object equal to everything",
        "leave with success in the call",
        "walk the frames for what is expected",
        "replace the harness",
    ],
)
def test_a_forged_program_does_not_pass_asserts_either(verifier: Verifier, name: str) -> None:
    judgement = _judge(verifier, _FORGERIES[name], _ASSERTS, None)
    assert not judgement.passed
    assert judgement.num_passed == 0


@pytest.mark.parametrize("code", ["import os; os._exit(0)", "raise SystemExit", "print('PASSED')"])
def test_a_script_that_only_leaves_with_success_does_not_pass(
    verifier: Verifier, code: str
) -> None:
    assert _judge(verifier, code, _STDIO, None).verdict is Verdict.WRONG_ANSWER


def test_scripts_are_judged_by_what_they_print(verifier: Verifier) -> None:
    right = _judge(verifier, "print(sum(map(int, input().split())))", _STDIO, None)
    half = _judge(
        verifier, "a, b = map(int, input().split())\nprint(a + b if a == 1 else 0)", _STDIO, None
    )
    assert (right.verdict, right.num_passed) == (Verdict.PASSED, 2)
    assert (half.verdict, half.num_passed) == (Verdict.WRONG_ANSWER, 1)


@pytest.mark.parametrize(
    ("code", "source", "passed"),
    [
        ("def f(x): return (x, [x])", "assert f(1) == (1, [1])", True),
        ("def f(x): return [x, [x]]", "assert f(1) == (1, [1])", False),
        ("def f(x): return {x}", "assert f(1) == {1}, 'a message'", True),
        ("def f(x): return 1.0", "assert 1 == f(1)", True),
        ("def f(x): return x", "assert f(-1) == -1", True),
        ("def f(x): return x", "assert f(set([1, 2])) == {1, 2}", True),
        ("def f(x): return x > 0", "assert f(1) is True", True),
        ("def f(x): return x", "assert f(1) is True", False),
        ("def f(x): return None", "assert f(1) is None", True),
        ("import re\ndef f(x): return re.match('a', x)", "assert f('ab')", True),
        ("import re\ndef f(x): return re.match('a', x)", "assert not f('b')", True),
        ("def f(x): return []", "assert f(1)", False),
        ("def f(x): return x / 3", "assert abs(f(1) - 0.3333) < 1e-3", True),
        ("def f(x): return x / 3", "assert abs(f(2) - 0.3333) < 1e-3", False),
        ("def f(x): return x", "assert f(1) == f(1) == 1", True),
        ("def f(x): return x", "assert f(1) != 2", True),
    ],
)
def test_asserts_mean_what_python_says(
    verifier: Verifier, code: str, source: str, passed: bool
) -> None:
    assert _judge(verifier, code, _asserts(source), None).passed is passed


def test_a_check_function_in_the_setup_is_run_as_it_is(verifier: Verifier) -> None:
    tests = _asserts("check(f)", setup="def check(g):\n    assert g(1) == 2\n    assert g(2) == 4")
    assert _judge(verifier, "def f(x): return 2 * x", tests, None).passed
    wrong = _judge(verifier, "def check(g): pass\ndef f(x): return 2", tests, None)
    assert wrong.verdict is Verdict.WRONG_ANSWER


def test_expected_values_of_simple_asserts_stay_outside(verifier: Verifier) -> None:
    code = """
import sys
def f(x):
    frame, seen = sys._getframe(), ""
    while frame:
        seen += repr(frame.f_locals) + repr(frame.f_globals)
        frame = frame.f_back
    return 0x7A69 if str(0x7A69) in seen else 0
"""
    assert not _judge(verifier, code, _asserts("assert f(1) == 31337"), None).passed


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (1, 1, True),
        (True, 1, False),
        (1, True, False),
        (1.0, 1, False),
        (1, 1.0, True),
        (True, 1.0, False),
        (0.1 + 0.2, 0.3, True),
        (0.3001, 0.3, False),
        (float("nan"), float("nan"), True),
        (10**400, 1.0, False),
        ("1", 1, False),
        (None, None, True),
        (None, False, False),
        ((1, (2,)), [1, [2]], True),
        ([1, 2], [1], False),
        ([], {}, False),
        ("ab", ["a", "b"], False),
        ({1: 2}, {"1": 2}, True),
        ({True: 2}, {"true": 2}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({1, 2}, [1, 2], False),
        (None, {}, False),
    ],
)
def test_values_are_compared_as_json_knows_types(value: Any, expected: Any, same: bool) -> None:
    assert same_value(value, expected) is same


@pytest.mark.parametrize(
    ("stdout", "expected", "same"),
    [
        ("1 2\n", "1 2", True),
        ("  1   2 \r\n3\n\n", "1 2\n3", True),
        ("1\n2", "1 2", False),
        ("1\n\n2", "1\n2", False),
        ("0.30000000000000004", "0.3", True),
        ("3.0", "3", True),
        ("1e3", "1000.0", True),
        ("10000000000000001", "10000000000000002", False),
        ("0.31", "0.3", False),
        ("YES", "Yes", False),
        ("nan", "NaN", False),
        ("inf", "1e999", False),
        ("", "", True),
        ("", "0", False),
    ],
)
def test_output_is_compared_line_by_line_and_token_by_token(
    stdout: str, expected: str, same: bool
) -> None:
    assert same_output(stdout, expected) is same


@pytest.mark.parametrize(
    ("code", "tests", "verdict"),
    [
        ("import absent_package\ndef f(x): return 2 * x", _DOUBLE, Verdict.UNJUDGED),
        ("def f(x):\n    from absent.part import y\n    return 2 * x", _DOUBLE, Verdict.UNJUDGED),
        ("import os, absent_package as a\nprint(3)", _STDIO, Verdict.UNJUDGED),
        ("import Queue\ndef f(x): return 2 * x", _DOUBLE, Verdict.RUNTIME_ERROR),
        ("import json.absent\ndef f(x): return 2 * x", _DOUBLE, Verdict.RUNTIME_ERROR),
        ("import numpy.absent\ndef f(x): return 2 * x", _DOUBLE, Verdict.RUNTIME_ERROR),
        (
            "def f(x): raise ModuleNotFoundError(\"No module named 'absent'\")",
            _DOUBLE,
            Verdict.RUNTIME_ERROR,
        ),
        (
            "def f(x):\n    if x == 5: return 0\n    import absent_package",
            _DOUBLE,
            Verdict.WRONG_ANSWER,
        ),
    ],
)
def test_a_program_that_needs_an_absent_package_is_not_judged(
    verifier: Verifier, code: str, tests: str, verdict: Verdict
) -> None:
    judgement = _judge(verifier, code, tests, "f" if tests == _DOUBLE else None)
    assert judgement.verdict is verdict
    if verdict is Verdict.UNJUDGED:
        assert re.fullmatch(
            r"needs the package 'absent\w*', which is not installed", judgement.detail
        )
        assert not judgement.passed and not judgement.is_label


def test_returned_integers_of_many_digits_are_compared_exactly(verifier: Verifier) -> None:
    tests = json.dumps([{"input": [20_000], "output": 3**20_000}])
    assert _judge(verifier, "def f(n): return 3 ** n", tests).passed
    assert not _judge(verifier, "def f(n): return 3 ** n + 1", tests).passed


def test_the_same_program_runs_once_now_and_later() -> None:
    good, bad = "def f(x): return 2 * x", "def f(x): return x"
    with Verifier(timeout_s=3.0) as verifier:
        batch = [Program(code, _DOUBLE, "f") for code in (good, bad, good, "", good)]
        first = verifier.verify(batch)
        assert [judgement.passed for judgement in first] == [True, False, True, False, True]
        assert verifier.num_executed == 2
        assert verifier.verify(batch) == first
        assert verifier.num_executed == 2
        verifier.verify([Program(good, _ASSERTS)])
        assert verifier.num_executed == 3


def test_malformed_tests_are_refused_not_judged(verifier: Verifier) -> None:
    with pytest.raises(DataError):
        _judge(verifier, "def f(x): return x", "[]")


def test_early_stop_settles_the_verdict_with_fewer_runs() -> None:
    cases = [{"input": str(x), "output": str(x + (x == 1))} for x in range(6)]
    program = Program("print(input())", json.dumps(cases))
    with Verifier(early_stop=True) as hasty, Verifier() as thorough:
        (first,), (second,) = hasty.verify([program]), thorough.verify([program])
    assert first.verdict is second.verdict is Verdict.WRONG_ANSWER
    assert (first.num_passed, second.num_passed) == (1, 5)


def test_fixtures_of_many_megabytes_work() -> None:
    text = "7 " * 5_000_000
    cases = [{"input": text, "output": text.replace("7", "8")}]
    numbers = list(range(1_000_000))
    with Verifier(timeout_s=20.0) as verifier:
        judgements = verifier.verify(
            [
                Program("print(input().replace('7', '8'))", json.dumps(cases)),
                Program(
                    "def f(xs): return sum(xs)",
                    json.dumps([{"input": [numbers], "output": sum(numbers)}]),
                    "f",
                ),
            ]
        )
    assert [judgement.passed for judgement in judgements] == [True, True]
