"""The verdict on a program and its asserts is that of plain Python: each kind, right and wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from reward.sandbox.pool import Limits
from reward.verify.verdict import Program, Verifier
from rl.types import Verdict

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(limits=Limits(wall_s=10.0)) as found:
        yield found


def _module(body: str) -> str:
    """Tests as a module of pytest has them: one function, which is called."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return json.dumps({"assert": ["test_it()"], "setup": f"{_IMPORTS}\ndef test_it():\n{lines}\n"})


_IMPORTS = """
import asyncio, collections, contextlib, copy, datetime, enum, io, json, pathlib, unittest.mock
import numpy as np
import pytest
import solution
from solution import *
"""

# What the tests say, a program that they pass, one that they fail.
_KINDS = {
    "message of an exception": (
        "with pytest.raises(ValueError, match='too short') as caught:\n    check('ab')\n"
        "assert caught.value.args == ('too short', 2)",
        "def check(word): raise ValueError('too short', len(word))",
        "def check(word): raise ValueError('too long', len(word))",
    ),
    "parents of an exception": (
        "with pytest.raises(LookupError):\n    find(3)\nassert issubclass(Missing, LookupError)",
        "class Missing(KeyError): pass\ndef find(key): raise Missing(key)",
        "class Missing(Exception): pass\ndef find(key): raise Missing(key)",
    ),
    "cause of an exception": (
        "try:\n    load('x')\nexcept RuntimeError as error:\n"
        "    assert isinstance(error.__cause__, ValueError)\nelse:\n    assert False",
        "def load(text):\n    try:\n        return int(text)\n    except ValueError as error:\n"
        "        raise RuntimeError(text) from error",
        "def load(text): raise RuntimeError(text)",
    ),
    "exception of a library": (
        "with pytest.raises(json.JSONDecodeError) as caught:\n    parse('[')\n"
        "assert caught.value.pos == 1",
        "import json\ndef parse(text): return json.loads(text)",
        "def parse(text): raise ValueError(text)",
    ),
    "end of an iterator": (
        "numbers = count_to(1)\nassert next(numbers) == 1\n"
        "with pytest.raises(StopIteration):\n    next(numbers)",
        "def count_to(n): yield from range(1, n + 1)",
        "def count_to(n): yield from range(1, n + 2)",
    ),
    "no exception where one is expected": (
        "with pytest.raises(TypeError):\n    double(object())",
        "def double(x): return x * 2",
        "def double(x): return 4",
    ),
    "an exit is no exception": (
        "with pytest.raises(Exception):\n    stop()",
        "def stop(): raise RuntimeError",
        "import sys\ndef stop(): sys.exit(2)",
    ),
    "identity": (
        "rows = [[1], [2]]\nmade = deep(rows)\nassert made == rows and made[0] is not rows[0]",
        "import copy\ndef deep(rows): return copy.deepcopy(rows)",
        "def deep(rows): return list(rows)",
    ),
    "one instance": (
        "assert Registry() is Registry()\nassert solution.Registry.made == 1",
        "class Registry:\n    made = 0\n    _one = None\n    def __new__(cls):\n"
        "        if cls._one is None:\n            cls._one = super().__new__(cls)\n"
        "            cls.made += 1\n        return cls._one",
        "class Registry:\n    made = 1",
    ),
    "one instance by a metaclass": (
        "assert Config() is Config()",
        "class Once(type):\n    _made = {}\n    def __call__(cls, *args):\n"
        "        if cls not in cls._made:\n            cls._made[cls] = super().__call__(*args)\n"
        "        return cls._made[cls]\nclass Config(metaclass=Once): pass",
        "class Config: pass",
    ),
    "standard output": (
        "out = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    greet('Ann')\n"
        "assert out.getvalue() == 'Hello, Ann\\n'",
        "def greet(name): print('Hello,', name)",
        "def greet(name): print('Hello', name)",
    ),
    "an argument that is changed by name": (
        "kept = {'a': [1]}\nadd(into=kept, key='a', value=2)\nassert kept == {'a': [1, 2]}",
        "def add(into, key, value): into[key].append(value)",
        "def add(into, key, value): into[key] = [value]",
    ),
    "fields of a namedtuple": (
        "p = origin()\nassert p.x == 0 and p._replace(x=1) == (1, 0)",
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\n"
        "def origin(): return P(0, 0)",
        "def origin(): return (0, 0)",
    ),
    "counters and defaults": (
        "c = letters('aab')\nassert c.most_common(1) == [('a', 2)] and c['z'] == 0",
        "from collections import Counter\ndef letters(s): return Counter(s)",
        "def letters(s): return {c: s.count(c) for c in s}",
    ),
    "members of an enumeration": (
        "assert Color['RED'] is Color.RED and Color.RED.value == 1 and isinstance(pick(), Color)",
        "from enum import Enum\nclass Color(Enum):\n    RED = 1\n    BLUE = 2\n"
        "def pick(): return Color.RED",
        "from enum import Enum\nclass Color(Enum):\n    RED = 2\n    BLUE = 1\n"
        "def pick(): return Color.RED",
    ),
    "dates": (
        "assert after(datetime.date(2024, 2, 28)) == datetime.date(2024, 2, 29)",
        "from datetime import timedelta\ndef after(day): return day + timedelta(days=1)",
        "from datetime import timedelta\ndef after(day): return day + timedelta(days=2)",
    ),
    "paths": (
        "assert change('a/b.txt') == pathlib.Path('a/b.md')",
        "from pathlib import Path\ndef change(p): return Path(p).with_suffix('.md')",
        "def change(p): return p[:-4] + '.md'",
    ),
    "arrays": (
        "assert np.allclose(halve(np.array([2.0, 3.0])), [1.0, 1.5])\n"
        "assert halve(np.ones((2, 2))).shape == (2, 2)",
        "import numpy as np\ndef halve(a): return np.asarray(a) / 2",
        "import numpy as np\ndef halve(a): return np.asarray(a) // 2",
    ),
    "operators of a class": (
        "assert V(1, 2) + V(3, 4) == V(4, 6) and V(1, 2) * 2 == V(2, 4) and -V(1, 0) != V(1, 0)",
        "class V:\n    def __init__(s, x, y): s.x, s.y = x, y\n"
        "    def __add__(s, o): return V(s.x + o.x, s.y + o.y)\n"
        "    def __mul__(s, k): return V(s.x * k, s.y * k)\n"
        "    def __neg__(s): return s * -1\n"
        "    def __eq__(s, o): return isinstance(o, V) and (s.x, s.y) == (o.x, o.y)",
        "class V:\n    def __init__(s, x, y): s.x, s.y = x, y\n"
        "    def __add__(s, o): return V(s.x + o.x, s.y + o.y)\n"
        "    def __mul__(s, k): return V(s.x * k, s.y)\n"
        "    def __neg__(s): return s * -1\n"
        "    def __eq__(s, o): return isinstance(o, V) and (s.x, s.y) == (o.x, o.y)",
    ),
    "membership, length and slices": (
        "d = Deck('abc')\nassert 'b' in d and 'z' not in d and len(d) == 3 and d[1:] == ['b', 'c']",
        "class Deck:\n    def __init__(s, cards): s.cards = list(cards)\n"
        "    def __contains__(s, card): return card in s.cards\n"
        "    def __len__(s): return len(s.cards)\n    def __getitem__(s, i): return s.cards[i]",
        "class Deck:\n    def __init__(s, cards): s.cards = list(cards)\n"
        "    def __contains__(s, card): return True\n"
        "    def __len__(s): return len(s.cards)\n    def __getitem__(s, i): return s.cards[i]",
    ),
    "hashing": (
        "assert len({Key('a'), Key('A'), Key('b')}) == 2",
        "class Key:\n    def __init__(s, t): s.t = t.lower()\n"
        "    def __eq__(s, o): return s.t == o.t\n    def __hash__(s): return hash(s.t)",
        "class Key:\n    def __init__(s, t): s.t = t\n"
        "    def __eq__(s, o): return s.t == o.t\n    def __hash__(s): return hash(s.t)",
    ),
    "types": (
        "assert type(make()).__name__ == 'Node' and type(make()) is Node",
        "class Node: pass\ndef make(): return Node()",
        "class Node: pass\nclass Leaf(Node): pass\ndef make(): return Leaf()",
    ),
    "coroutines": (
        "async def both(): return await asyncio.gather(twice(1), twice(2))\n"
        "assert asyncio.run(both()) == [2, 4]",
        "import asyncio\nasync def twice(x):\n    await asyncio.sleep(0)\n    return 2 * x",
        "async def twice(x): return x + 1",
    ),
    "names that are replaced": (
        "with unittest.mock.patch('solution.fetch', return_value=20) as fetch:\n"
        "    assert double() == 40\nfetch.assert_called_once_with('n')",
        "def fetch(name): raise OSError(name)\ndef double(): return 2 * fetch('n')",
        "def fetch(name): raise OSError(name)\ndef double(): return 2 * fetch('m')",
    ),
    "the module under another name": (
        "import solution as s\nassert s.LIMIT == 3 and s.clip(9) == 3",
        "LIMIT = 3\ndef clip(x): return min(x, LIMIT)",
        "LIMIT = 3\ndef clip(x): return x",
    ),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_each_kind_of_test_means_what_it_means_in_python(verifier: Verifier, kind: str) -> None:
    body, right, wrong = _KINDS[kind]
    first, second = verifier.verify([Program(code, _module(body)) for code in (right, wrong)])
    assert first.passed, first.detail
    assert second.verdict in (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR)


def test_tests_and_program_may_import_alike(verifier: Verifier) -> None:
    setup = (
        "from solution import *\nfrom solution import twice\ndef test():\n    assert twice(2) == 4"
    )
    tests = json.dumps({"assert": ["test()"], "setup": setup})
    right, wrong = verifier.verify(
        [Program(f"import math as m\ndef twice(x): return {n} * x", tests) for n in (2, 3)]
    )
    assert right.passed
    assert wrong.verdict is Verdict.WRONG_ANSWER


def test_a_failed_assert_is_told_with_both_sides(verifier: Verifier) -> None:
    tests = json.dumps({"assert": ["assert f(2) == [4]"], "setup": ""})
    (judgement,) = verifier.verify([Program("def f(x): return [x]", tests)])
    assert judgement.detail == "assert f(2) == [4] does not hold: [2] and [4]"


def test_what_neither_way_can_judge_is_neither_right_nor_wrong(verifier: Verifier) -> None:
    tests = json.dumps({"assert": ["assert f(1) is f(1)"], "setup": ""})
    (judgement,) = verifier.verify([Program("import gc\ndef f(x): return gc", tests)])
    assert judgement.verdict is Verdict.UNJUDGED
    assert "identity" in judgement.detail


def test_a_program_that_is_not_ordinary_is_judged_by_its_data(verifier: Verifier) -> None:
    tests = json.dumps({"assert": ["assert f('2 * 3') == 6"], "setup": ""})
    right, wrong = verifier.verify(
        [Program(f"def f(text): return eval(text){more}", tests) for more in ("", " + 1")]
    )
    assert right.verdict is Verdict.PASSED
    assert wrong.verdict is Verdict.WRONG_ANSWER
