"""When two programs count as the same."""

from __future__ import annotations

import pytest

from reward.normal_form import normalise

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
    ],
)
def test_what_changes_the_meaning_makes_a_program_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)
