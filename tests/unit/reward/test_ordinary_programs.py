"""What watches a program leaves the verdict of an ordinary one as plain Python gives it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from reward.sandbox.pool import Limits
from reward.verify.verdict import Program, Verifier
from rl.types import Verdict

pytestmark = pytest.mark.unit

_MONEY = """
class Money:
    def __init__(self, amount): self.amount = amount
    def __add__(self, other): return Money(self.amount + getattr(other, "amount", other))
    def __eq__(self, other): return self.amount == getattr(other, "amount", other)
    def __lt__(self, other): return self.amount < getattr(other, "amount", other)
    def __repr__(self): return f"Money({self.amount})"
"""
_POINT = """
from dataclasses import dataclass
@dataclass
class Point:
    x: int
    y: int = 0
    def __add__(self, other): return Point(self.x + other.x, self.y + other.y)
"""
_PERSON = """
class Person:
    def __init__(self, name, age): self.name, self.age = name, age
    def __eq__(self, other): return isinstance(other, Person) and self.name == other.name
def older(p): return Person(p.name, p.age + 1)
"""
_BAG = """
from collections.abc import MutableSet
class Bag(MutableSet):
    def __init__(self, items=()): self._items = list(dict.fromkeys(items))
    def __contains__(self, item): return item in self._items
    def __iter__(self): return iter(self._items)
    def __len__(self): return len(self._items)
    def add(self, item): self._items.append(item)
    def discard(self, item): self._items.remove(item)
"""
_VERSION = """
from functools import total_ordering
@total_ordering
class Version:
    def __init__(self, text): self.parts = [int(part) for part in text.split(".")]
    def __eq__(self, other): return self.parts == other.parts
    def __lt__(self, other): return self.parts < other.parts
"""
_RETRY = """
import functools
def retry(times):
    def decorate(function):
        @functools.wraps(function)
        def called(*args):
            for at in range(times):
                try:
                    return function(*args)
                except ValueError:
                    if at == times - 1: raise
        return called
    return decorate
"""
_RETRIED = """
def check(deco):
    calls = []
    @deco(3)
    def flaky():
        calls.append(1)
        if len(calls) < 3: raise ValueError
        return "done"
    assert flaky() == "done"
    assert len(calls) == 3
"""
_LATER = "from unittest.mock import Mock\ndef check(f):\n    m = Mock()\n    f(m)\n"
# Name: code, setup, asserts that hold, and one that does not.
_ORDINARY: dict[str, tuple[str, str, list[str], str]] = {
    "an object that equals a number": (
        _MONEY,
        "",
        [
            "assert Money(2) + Money(3) == 5",
            "assert Money(2) < 3",
            "assert Money(0) + 0 == Money(0)",
        ],
        "assert Money(2) + 2 == 5",
    ),
    "objects of a dataclass": (
        _POINT,
        "",
        ["assert Point(1, 2) + Point(3, 4) == Point(4, 6)", "assert [Point(1)] == [Point(1, 0)]"],
        "assert Point(1, 2) + Point(3, 4) == Point(4, 7)",
    ),
    "objects that are compared by one of the things they hold": (
        _PERSON,
        "",
        ["assert older(Person('Ann', 3)) == Person('Ann', 4)"],
        "assert older(Person('Ann', 3)) == Person('Bob', 4)",
    ),
    "a set of a library's making": (
        _BAG,
        "",
        [
            "assert Bag([1, 2, 1]) == {1, 2}",
            "assert Bag([1]) | {2} == {1, 2}",
            "assert 1 in Bag([1])",
        ],
        "assert Bag([1, 2]) == {1, 3}",
    ),
    "an order of versions": (
        _VERSION,
        "",
        ["assert Version('1.10') > Version('1.9')", "assert Version('1.0') <= Version('1.0')"],
        "assert Version('1.10') < Version('1.9')",
    ),
    "a decorator that calls again": (_RETRY, _RETRIED, ["check(retry)"], "assert retry is None"),
    "a template that is given": (
        "def fill(template, **values): return template.format(**values)",
        "",
        ["assert fill('{a}-{b[0]}', a=1, b=[2]) == '1-2'"],
        "assert fill('{a}', a=1) == '2'",
    ),
    "members by their names": (
        "class Box:\n    size: int = 3\n    def __init__(self): self.a = 1\n"
        "def names(box): return sorted(box.__dict__), Box.__annotations__, Box.__dict__['size']",
        "",
        ["assert names(Box()) == (['a'], {'size': int}, 3)"],
        "assert names(Box()) == ([], {}, 3)",
    ),
    "annotations in text": (
        "import functools\n@functools.singledispatch\ndef kind(x): return 'other'\n"
        "@kind.register\ndef _(x: 'int | float'): return 'number'\n",
        "",
        ["assert kind(3) == 'number'", "assert kind('x') == 'other'"],
        "assert kind('x') == 'number'",
    ),
    "a call of what tests watch": (
        "def notify(send): send('hello', times=2)",
        _LATER + "    m.assert_called_once_with('hello', times=2)",
        ["check(notify)"],
        "assert notify(lambda *a, **k: 1) == 3",
    ),
    "members that are stored": (
        "class Node:\n    def __init__(self, v): self.v, self.next = v, None\n"
        "def chain(items):\n    head = last = Node(None)\n"
        "    for item in items:\n        last.next = Node(item)\n        last = last.next\n"
        "    return head.next\n",
        "",
        ["assert chain([1, 2]).next.v == 2"],
        "assert chain([1, 2]).next.v == 3",
    ),
    "fractions and a mapped function": (
        "from fractions import Fraction\ndef half(x): return Fraction(x) / 2",
        "from fractions import Fraction",
        ["assert half(3) == Fraction(3, 2)", "assert list(map(half, [2, 4])) == [1, 2]"],
        "assert half(3) == Fraction(3, 4)",
    ),
    "an end of a program's own iterator": (
        "def take(it, n):\n    out = []\n    for _ in range(n):\n        try: out += [next(it)]\n"
        "        except StopIteration: break\n    return out",
        "",
        ["assert take(iter([1, 2]), 5) == [1, 2]"],
        "assert take(iter([1, 2]), 5) == [1]",
    ),
    "a builtin that tests replace": (
        "def ask(): return int(input('n? ')) * 2",
        "from unittest.mock import patch\ndef check(f):\n"
        "    with patch('builtins.input', return_value='4'):\n        assert f() == 8\n",
        ["check(ask)"],
        "assert ask is None",
    ),
    "an exception of its own, named in tests that import": (
        "class TooFew(ValueError): pass\ndef first(xs):\n    if not xs: raise TooFew('none')\n"
        "    return xs[0]",
        "import pytest\nfrom solution import first, TooFew\n"
        "def test_none():\n    with pytest.raises(ValueError, match='none') as caught:\n"
        "        first([])\n    assert type(caught.value) is TooFew\n",
        ["test_none()", "assert first([3]) == 3"],
        "assert first([3]) == 4",
    ),
    "a test that expects an assert to fail": (
        "def strict(x):\n    assert x > 0, 'too small'\n    return x",
        "import pytest\n\ndef check(f):\n    with pytest.raises(AssertionError):\n        f(-1)\n",
        ["check(strict)", "assert strict(2) == 2"],
        "assert strict(2) == 3",
    ),
    "an array": (
        "import numpy as np\ndef double(xs): return np.asarray(xs) * 2",
        "import numpy as np",
        ["assert np.allclose(double([1, 2]), [2, 4])", "assert np.allclose(double([]), [])"],
        "assert np.allclose(double([1, 2]), [2, 5])",
    ),
}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(limits=Limits(wall_s=20.0, total_s=60.0)) as verifier:
        yield verifier


@pytest.mark.parametrize("name", _ORDINARY)
def test_an_ordinary_program_is_judged_as_python_would(verifier: Verifier, name: str) -> None:
    code, setup, holding, failing = _ORDINARY[name]
    given = [
        Program(code, json.dumps({"assert": asserts, "setup": setup}), None)
        for asserts in (holding, [*holding, failing])
    ]
    right, wrong = verifier.verify(given)
    assert (right.verdict, right.detail) == (Verdict.PASSED, "")
    assert wrong.verdict is Verdict.WRONG_ANSWER
