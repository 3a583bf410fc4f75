"""When two programs count as the same."""

from __future__ import annotations

import pytest

from reward.code.normal_form import normalise

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(xs): return [x for x in xs]", "def f(ys):\n\n    return [ y for y in ys ]  # why"),
        ('def f(x):\n    "doc"\n    return x', "def f(x):\n    return x"),
        ("def f(x: int) -> int: return x", "def f(y) -> int: return y"),
        ("n = int(input())\nprint(n)", "k = int(input())\nprint(k)"),
        ("def (", " def ( \n"),
    ],
)
def test_layout_and_variable_names_do_not_make_a_program_different(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x): return x", "def g(x): return x"),
        ("def f(x, y): return x", "def f(x, y): return y"),
        ("def f(x): return x > 5", "def f(x): return x > 6"),
        ("def f(x): return 1", "def f(x): return True"),
        ("sum = 0\nprint(sum)", "max = 0\nprint(max)"),
        ("def f(a, b): return a\nf(a=1, b=2)", "def f(b, a): return b\nf(a=1, b=2)"),
        ("import math as m\nm.pi", "import cmath as m\nm.pi"),
        ("f = lambda x: x", "g = lambda x: x"),
        ("def a(x): return x\nf = a", "def a(x): return x\ng = a"),
        ("class A:\n    x = 1\nprint(A.x)", "class A:\n    y = 1\nprint(A.x)"),
        (
            "class C(Enum):\n    RED = 1\nprint(C(1).name)",
            "class C(Enum):\n    BLUE = 1\nprint(C(1).name)",
        ),
        ("def v0(): return 1\nx = 2\nprint(x)", "def v0(): return 1\nx = 2\nprint(v0)"),
        ("def f(a: List[int]): return a", "def f(a): return a"),
        ("def f(a: print(1)): return a", "def f(a): return a"),
        (
            "@singledispatch\ndef f(a): ...\n@f.register\ndef _(a: int): return 1",
            "@singledispatch\ndef f(a): ...\n@f.register\ndef _(a: str): return 1",
        ),
        (
            "def f(a: int): pass\nprint(f.__annotations__)",
            "def f(a: str): pass\nprint(f.__annotations__)",
        ),
        ("'one'\nprint(__doc__)", "'two'\nprint(__doc__)"),
        ("a = 1\nprint(locals()['a'])", "b = 1\nprint(locals()['a'])"),
        ("a = 1\nprint(eval('a'))", "b = 1\nprint(eval('a'))"),
        ("f = partial(pow, 2)", "g = partial(pow, 2)"),
        ("def h(x): return x\nf = memo(h)", "def h(x): return x\ng = memo(h)"),
        ("x = 1.0", "x = 1"),
        ("print(-0.0)", "print(0.0)"),
    ],
)
def test_what_changes_the_meaning_makes_a_program_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_a_number_that_can_not_be_written_out_is_no_error() -> None:
    one, other = (f"x = 0x{'f' * 5000}{digit}" for digit in "12")
    assert normalise(one) == normalise(one) != normalise(other)
