"""Final variables: what a program's names hold when it ends, as data, and nothing that is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reward.verify.generated_tests import CallTest
from reward.verify.variables import final_variables
from reward.verify.verdict import Verifier
from rl.problems.prompts import StdioCase
from rl.types import Prompt, Variables

pytestmark = pytest.mark.unit

CALLED = Prompt(id="p", messages=(), tests='[{"input": [3], "output": 9}]', entry_point="f")
PRINTED = Prompt(id="p", messages=(), tests='[{"input": "4", "output": "1"}]')


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(timeout_s=1.0) as made:
        yield made


def of_call(verifier: Verifier, code: str, *args: object) -> Variables | None:
    return final_variables(verifier, CALLED, [code], CallTest("f", args or (3,), None))[code]


def of_script(verifier: Verifier, code: str, given: str = "4") -> Variables | None:
    return final_variables(verifier, PRINTED, [code], StdioCase(given, ""))[code]


@pytest.mark.parametrize(
    ("body", "held"),
    [
        ("a = x + 1\n    b = [a, x]\n    return b", (("a", "4"), ("b", "[4, 3]"))),
        ("return x", ()),  # what is given is no variable, unless the function changes it
        ("while x > 0:\n        x -= 2\n    return x", (("x", "-1"),)),
        ("for i in range(x):\n        n = i * i\n    return n", (("i", "2"), ("n", "4"))),
        ("y = [i for i in range(x)]\n    return y", (("y", "[0, 1, 2]"),)),  # i is none of f's
        ("def g():\n        inner = 1\n    a = 2\n    return a", (("a", "2"),)),
        ("if x > 5:\n        a = 1\n    b = 2\n    return b", (("b", "2"),)),  # a was never set
        ("a = 1\n    del a\n    return x", ()),
        ("a = b = c = d = x\n    return a", (("b", "3"), ("c", "3"), ("d", "3"))),  # the last three
        (
            "n = x\n    if n:\n        n += f(n - 1)\n    return n",
            (("n", "6"),),
        ),  # the first call's
        ("'''Text.'''\n    a = f.__doc__\n    return a", (("a", "'Text.'"),)),
        ("output = _a = 1\n    a = 2\n    return a", (("a", "2"),)),  # an answer's own word
        ("a = 1\n    a += x\n    raise ValueError", (("a", "4"),)),
    ],
)
def test_variables_of_a_function_are_what_it_assigns_as_the_call_leaves_them(
    verifier: Verifier, body: str, held: Variables
) -> None:
    assert of_call(verifier, f"def f(x):\n    {body}") == held


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ("(True, 1.0, None, 'a', b'b', 2j)", "(True, 1.0, None, 'a', b'b', 2j)"),
        ("{1: {'a'}, (2,): []}", "{1: {'a'}, (2,): []}"),
        ("set()", "set()"),
        ("[float('nan')]", None),  # no literal says it
        ("frozenset([1])", None),
        ("type('Mine', (int,), {})(3)", None),  # not exactly a builtin type
        ("[type('Mine', (str,), {'__repr__': lambda s: '1'})()]", None),
        ("__import__('collections').Counter('aab')", None),
        ("__import__('enum').IntEnum('E', 'A').A", None),
        ("lambda: 1", None),
        ("iter([1])", None),
        ("'a' * 254", repr("a" * 254)),
        ("'a' * 255", None),  # too long to ask for
        ("10 ** 5000", None),
    ],
)
def test_a_value_is_kept_where_a_literal_says_it_and_its_types_exactly(
    verifier: Verifier, value: str, held: str | None
) -> None:
    found = of_call(verifier, f"def f(x):\n    v = {value}\n    w = 1\n    return w")
    assert found == ((("v", held),) if held else ()) + (("w", "1"),)


def test_what_holds_itself_is_no_value(verifier: Verifier) -> None:
    assert of_call(verifier, "def f(x):\n    v = []\n    v.append(v)\n    return 1") == ()


def test_a_method_of_a_solution_is_watched(verifier: Verifier) -> None:
    code = "class Solution:\n    def f(self, x):\n        a = x * 2\n        return a"
    assert of_call(verifier, code) == (("a", "6"),)


def test_builtins_that_a_program_has_taken_the_names_of_change_nothing(verifier: Verifier) -> None:
    code = "all = len = repr = list = type = None\ndef f(x):\n    a = x\n    return a"
    assert of_call(verifier, code) == (("a", "3"),)


@pytest.mark.parametrize(
    "code",
    [
        "n = int(input())\nm = n * 2\nprint(m)",
        "if __name__ == '__main__':\n    n = int(input())\n    m = n * 2\n    print(m)",
        "def main():\n    n = int(input())\n    m = n * 2\n    print(m)\n\nmain()",
        "def main():\n    n = int(input())\n    m = n * 2\n    print(m)\n\n"
        "if __name__ == '__main__':\n    main()",
        "import sys\ndef solve():\n    n = int(input())\n    m = n * 2\n    return m\n\n"
        "if __name__ == '__main__':\n    print(solve())\n    sys.exit(0)",
        "n = int(input())\nm = n * 2\nexit()",
    ],
)
def test_variables_of_a_whole_program_are_found_under_a_main_guard_and_before_an_exit(
    verifier: Verifier, code: str
) -> None:
    assert of_script(verifier, code) == (("n", "4"), ("m", "8"))


def test_a_program_without_variables_has_none_and_does_not_run(verifier: Verifier) -> None:
    before = verifier.num_executed
    assert of_script(verifier, "import sys\nprint(input())") == ()
    assert of_call(verifier, "f = lambda x: x") == ()
    assert verifier.num_executed == before


@pytest.mark.parametrize(
    "code",
    [
        "def f(x:",
        "def f(x):\n    a = 1\n    while True: pass",
        "def f(x):\n    a = 1\n    __import__('os')._exit(0)",
        "def f(x):\n    a = 1\n    globals()['_codescaler_values'] = lambda _: ['a']\n    return 1",
        "def f(x):\n    a = 1\n    globals()['_codescaler_values'] = lambda _: [[1], [2]]",
        "def f(x):\n    a = 1\n    globals()['_codescaler_values'] = lambda _: {'a': 1}",
    ],
)
def test_of_a_program_that_does_not_end_or_reports_nonsense_nothing_is_known(
    verifier: Verifier, code: str
) -> None:
    assert of_call(verifier, code) is None


def test_a_program_that_lies_changes_what_is_said_of_itself_alone(verifier: Verifier) -> None:
    liar = (
        "def f(x):\n    a = x\n"
        "    globals()['_codescaler_left'].append(1)\n"
        "    globals()['_codescaler_values'] = lambda _: [['7']]\n"
        "    open('report', 'w').write('[]')\n    return a"
    )
    honest = "def f(x):\n    a = x\n    return a"
    found = final_variables(verifier, CALLED, [liar, honest, liar], CallTest("f", (3,), None))
    assert found == {liar: (("a", "'7'"),), honest: (("a", "3"),)}


def test_asserted_problems_are_watched_with_arguments_that_json_does_not_know(
    verifier: Verifier,
) -> None:
    problem = Prompt(id="p", messages=(), tests='{"assert": ["assert f((1, 2)) == 3"]}')
    code = "def f(x):\n    a = {x}\n    return 3"
    found = final_variables(verifier, problem, [code], CallTest("f", ((1, 2),), None))
    assert found[code] == (("a", "{(1, 2)}"),)
