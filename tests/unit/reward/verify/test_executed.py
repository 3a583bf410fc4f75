"""Executed lines: what runs is seen, and nothing is claimed of what cannot be seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reward.verify.executed import executed_on, executed_programs
from reward.verify.generated_tests import CallTest
from reward.verify.verdict import Verifier
from rl.types import Executed, Prompt

pytestmark = pytest.mark.unit

BRANCHY = """def f(x):
    if x > 3:
        return max(
            x,
            4,
        )
    elif x < 0:
        return 0
    else:
        return 1
"""


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(timeout_s=1.0) as made:
        yield made


def calls(*inputs: int) -> Prompt:
    tests = ", ".join(f'{{"input": [{x}], "output": 0}}' for x in inputs)
    return Prompt(id="p", messages=(), tests=f"[{tests}]", entry_point="f")


def seen(verifier: Verifier, problem: Prompt, code: str) -> Executed:
    (found,) = executed_programs(verifier, problem, [code])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("inputs", "left", "taken"),
    [((5,), (7, 8, 10), 1), ((-1,), (3, 4, 5, 6, 10), 2), ((5, -1), (10,), 3), ((5, -1, 1), (), 4)],
)
def test_the_lines_of_ways_that_no_input_takes_are_left_out(
    verifier: Verifier, inputs: tuple[int, ...], left: tuple[int, ...], taken: int
) -> None:
    found = seen(verifier, calls(*inputs), BRANCHY)
    assert found == Executed(left_lines=left, num_branches=4, num_taken=taken)
    assert found.coverage == taken / 4


def test_what_comes_after_an_error_is_not_executed(verifier: Verifier) -> None:
    assert seen(verifier, calls(1), "def f(x):\n    y = x / 0\n    return y").left_lines == (3,)


def test_a_line_with_a_statement_that_ran_is_executed(verifier: Verifier) -> None:
    assert (
        seen(verifier, calls(1), "def f(x):\n    if x > 3: return 1\n    return 2").left_lines == ()
    )


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("for y in []:\n        x += 1\n    return x", (3,)),
        ("while x > 9:\n        x += 1\n    return x", (3,)),
        ("try:\n        return x\n    except ValueError:\n        return 0", (5,)),
        (
            "match x:\n        case 1:\n            return x\n        case _:\n            pass",
            (6,),
        ),
        ("def g():\n        return 1\n    return x", (3,)),
        ("with open('/dev/null'):\n        return x\n    return 0", (4,)),
        ("class A:\n        '''B'''\n        y = 1\n    assert A.__doc__ == 'B'", ()),
    ],
)
def test_every_block_is_watched(verifier: Verifier, body: str, left: tuple[int, ...]) -> None:
    assert seen(verifier, calls(1), f"def f(x):\n    {body}").left_lines == left


def test_a_docstring_and_imports_from_the_future_stay_first(verifier: Verifier) -> None:
    code = '"""Text."""\nfrom __future__ import annotations\ndef f(x: Unknown):\n    return x'
    assert seen(verifier, calls(1), code).left_lines == ()


def test_a_method_of_a_solution_is_watched(verifier: Verifier) -> None:
    code = "class Solution:\n    def f(self, x):\n        if x:\n            return 1\n        pass"
    assert seen(verifier, calls(1), code).left_lines == (5,)


def test_a_whole_program_is_watched_under_a_main_guard_too(verifier: Verifier) -> None:
    code = (
        "def main():\n    if int(input()) > 3:\n        print(1)\n    else:\n        exit()\n\n"
        "if __name__ == '__main__':\n    main()"
    )
    problem = Prompt(id="p", messages=(), tests='[{"input": "4", "output": "1"}]')
    assert seen(verifier, problem, code).left_lines == (5,)
    problem = Prompt(id="p", messages=(), tests='[{"input": "1", "output": "1"}]')
    assert seen(verifier, problem, code).left_lines == (3,)


@pytest.mark.parametrize("read", ["input()", "sys.stdin.read()", "open(0).read()"])
def test_every_input_is_read_from_its_start_in_every_way(verifier: Verifier, read: str) -> None:
    code = f"import sys\nn = {read}\nif int(n) > 3:\n    print(1)\nelif int(n) < 1:\n    print(2)"
    tests = ", ".join(f'{{"input": "{n}", "output": ""}}' for n in (0, 4))
    problem = Prompt(id="p", messages=(), tests=f"[{tests}]")
    assert seen(verifier, problem, code) == Executed(left_lines=(), num_branches=4, num_taken=3)


@pytest.mark.parametrize(
    "code", ["", "def f(x:", "def f(x):\n    while True: pass", "import os\nos._exit(0)"]
)
def test_of_a_program_that_does_not_end_nothing_is_known(verifier: Verifier, code: str) -> None:
    assert executed_programs(verifier, calls(1), [code]) == [None]


def test_without_inputs_nothing_is_known(verifier: Verifier) -> None:
    problem = Prompt(id="p", messages=(), entry_point="f")
    assert executed_programs(verifier, problem, [BRANCHY]) == [None]


@pytest.mark.parametrize("mark", ["99", "-1", "'a'", "2.0"])
def test_a_report_that_makes_no_sense_is_no_report(verifier: Verifier, mark: str) -> None:
    code = f"def f(x):\n    globals()['_codescaler_seen'].add({mark})\n    return 1"
    assert executed_programs(verifier, calls(1, 2), [code]) == [None]


def test_inputs_of_others_can_be_given_for_each_program(verifier: Verifier) -> None:
    runs = [(BRANCHY, [CallTest("f", (x,), 0)]) for x in (5, -1)]
    found = executed_on(verifier, calls(1), runs)
    assert [one and one.num_taken for one in found] == [1, 2]


def test_a_program_may_claim_that_nothing_of_it_ran_which_is_all_that_it_can(
    verifier: Verifier,
) -> None:
    code = "def f(x):\n    y = x\n    globals()['_codescaler_seen'].clear()\n    return y"
    assert seen(verifier, calls(1), code).left_lines == (1, 2, 3)


def test_equal_programs_run_once(verifier: Verifier) -> None:
    before = verifier.num_executed
    first, second = executed_programs(verifier, calls(5), [BRANCHY, BRANCHY])
    assert first == second is not None
    assert verifier.num_executed == before + 1
