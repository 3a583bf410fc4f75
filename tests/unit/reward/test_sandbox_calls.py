"""The function form: what is called, what it may rely on, and how large a value may be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reward.sandbox.inside.preamble import PREAMBLE
from reward.sandbox.pool import CallJob, Limits, Sandbox
from reward.sandbox.report import Ending
from reward.verify.verdict import Program, Verifier
from rl.types import Verdict

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(timeout_s=30.0) as verifier:
        yield verifier


def _passes(
    verifier: Verifier, code: str, *cases: tuple[list[Any], Any], setup: str = "", name: str = "f"
) -> bool:
    listed = [{"input": args, "output": output} for args, output in cases]
    tests = {"cases": listed, "setup": setup} if setup else listed
    (judgement,) = verifier.verify([Program(code, json.dumps(tests), name)])
    return judgement.passed


_METHOD = "class Solution:\n    def merge(self, a): return sorted(a)\n"
_SORTED = ([[2, 1]], [1, 2])


@pytest.mark.parametrize(
    "code",
    [
        f"from heapq import *\n{_METHOD}",
        f"{_METHOD}from heapq import *",
        f"from heapq import merge\n{_METHOD}",
        f"from heapq import merge as merge\n{_METHOD}",
        f"import heapq as merge\n{_METHOD}",
        f"{_METHOD}def merge(a): return Solution().merge(a)",
        f"{_METHOD}merge = Solution().merge",
        f"{_METHOD}merge = lambda a: sorted(a)",
        "def merge(a): return sorted(a)\nclass Solution:\n    def merge(self, a): return None",
        "class Solution:\n    @staticmethod\n    def merge(a): return sorted(a)",
        "class Solution:\n    merge = staticmethod(sorted)",
        "class Solution:\n    @classmethod\n    def merge(cls, a): return sorted(a)",
        "class Solution:\n    def __init__(self): self.merge = sorted",
        "class Base:\n    def merge(self, a): return sorted(a)\nclass Solution(Base): pass",
        "merge = sorted",
        "from builtins import sorted as merge",
        "import functools\nmerge = functools.partial(sorted)",
        "class merge(list):\n    def __init__(self, a): super().__init__(sorted(a))",
        "if True:\n    def merge(a): return sorted(a)",
        "try:\n    from missing import merge\nexcept ImportError:\n"
        "    def merge(a): return sorted(a)",
        "def make():\n    global merge\n    merge = sorted\nmake()",
        "exec('def merge(a): return sorted(a)')",
        "globals()['merge'] = sorted",
    ],
)
def test_what_a_program_defines_itself_is_called(verifier: Verifier, code: str) -> None:
    assert _passes(verifier, code, _SORTED, name="merge")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("x = 1", "gcd"),  # only the preamble has it
        ("class Solution:\n    def lcm(self, a, b): return a * b", "gcd"),
        ("def g(a, b): return gcd(a, b)", "gcd"),
        ("", "gcd"),
    ],
)
def test_nothing_of_the_preamble_is_called(verifier: Verifier, code: str, name: str) -> None:
    assert not _passes(verifier, f"{code}\n", ([4, 6], 2), name=name)


@pytest.mark.parametrize(
    "code", ["from math import gcd", "from math import *", "import math\ngcd = math.gcd"]
)
def test_what_a_program_imports_itself_is_called(verifier: Verifier, code: str) -> None:
    assert _passes(verifier, code, ([4, 6], 2), name="gcd")


@pytest.mark.parametrize(
    "code",
    [
        "class Solution:\n    def __init__(self): self.out = []\n    def f(self, n):\n"
        "        self.out += range(n)\n        return self.out",
        "class Solution:\n    def f(self, n):\n"
        "        self.n = getattr(self, 'n', []) + list(range(n))\n        return self.n",
        "from functools import cache\nclass Solution:\n    def __init__(self): self.seen = {}\n"
        "    def f(self, n):\n        @cache\n        def go(i):\n"
        "            return [] if i == 0 else [*go(i - 1), i - 1]\n"
        "        return self.seen.setdefault('x', go(n))",
    ],
)
def test_each_case_has_an_instance_of_its_own(verifier: Verifier, code: str) -> None:
    assert _passes(verifier, code, ([2], [0, 1]), ([3], [0, 1, 2]), ([1], [0]))


def test_what_lies_outside_of_the_instance_stays(verifier: Verifier) -> None:
    code = "seen = []\nclass Solution:\n    def f(self, n): return seen.append(n) or seen"
    assert _passes(verifier, code, ([2], [2]), ([3], [2, 3]))


def test_an_instance_that_cannot_be_made_fails_its_case_alone(verifier: Verifier) -> None:
    code = (
        "made = []\nclass Solution:\n    def __init__(self):\n        made.append(1)\n"
        "        assert len(made) != 2\n    def f(self): return 1"
    )
    tests = json.dumps([{"input": [], "output": 1}] * 3)
    (judgement,) = verifier.verify([Program(code, tests, "f")])
    assert (judgement.num_passed, judgement.verdict) == (2, Verdict.RUNTIME_ERROR)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("max(Counter([1, 1]).values())", 2),
        ("sum(accumulate([1, 2]))", 4),
        ("list(pairwise([1, 2, 3]))", [[1, 2], [2, 3]]),
        ("reduce(lambda a, b: a + b, [1, 2])", 3),
        ("heappop([1, 2])", 1),
        ("heapq.heappop([1, 2])", 1),
        ("bisect_left([1, 2], 2)", 1),
        ("bisect.bisect_left([1, 2], 2)", 1),
        ("math.gcd(4, 6) + gcd(4, 6)", 4),
        ("inf > 1 and -math.inf < 0", True),
        ("re.findall('a', 'aba')", ["a", "a"]),
        ("ascii_lowercase[:2] + string.digits[:1]", "ab0"),
        ("random.Random(0).randint(1, 1)", 1),
        ("datetime.date(2020, 1, 2).day + datetime.datetime(2020, 1, 1).month", 3),
        ("(date(2020, 1, 2) - timedelta(1)).day", 1),
        ("collections.deque([1])[0] + deque([1])[0]", 2),
        ("defaultdict(int)[0]", 0),
        ("OrderedDict(a=1)['a']", 1),
        ("xor(1, 3)", 2),
        ("operator.itemgetter(0)([5])", 5),
        ("pow(2, 10, 1000)", 24),
        ("[abs(-1), sum([1]), min(1, 2), len('a')]", [1, 1, 1, 1]),
        ("copy.deepcopy([1])", [1]),
        ("sys.maxsize > 1 and bool(json.dumps([]))", True),
        ("isinstance([], List)", True),
    ],
)
def test_programs_may_use_what_sites_import_for_them(
    verifier: Verifier, expression: str, expected: object
) -> None:
    code = f"class Solution:\n    def f(self, a: List[int]) -> Optional[int]: return {expression}"
    assert _passes(verifier, code, ([[]], expected))


@pytest.mark.parametrize(
    "code",
    [
        "def gcd(a, b): return 7\ndef f(): return gcd(2, 4)",
        "from typing import *\nclass Counter: x = 7\ndef f(): return Counter().x",
        "from math import *\ndef f(): return 7 if type(pow(2, 3)) is float else 0",
        "from datetime import datetime\ndef f(): return 7 if datetime(2020, 1, 1).day == 1 else 0",
        "e = 7\nclass Solution:\n    def f(self): return e",
    ],
)
def test_a_programs_own_names_win_over_the_preamble(verifier: Verifier, code: str) -> None:
    assert _passes(verifier, code, ([], 7))


def test_a_job_without_a_preamble_has_none() -> None:
    code = "def f(): return Counter()"
    with Sandbox() as sandbox:
        bare, given, setup = (
            sandbox.run([CallJob(code=code, entry_point="f", args_N=((),), imports=imports)])[0]
            for imports in ("", PREAMBLE, "Counter = int")
        )
    assert bare.kind is Ending.RUNTIME_ERROR
    assert (given.observations_N[0].value, setup.observations_N[0].value) == ({}, 0)


def test_setup_runs_before_the_program_in_each_form(verifier: Verifier) -> None:
    setup = "class Node:\n    def __init__(self, x): self.x = x\nf = None"
    assert _passes(verifier, "def f(x): return Node(x).x", ([3], 3), setup=setup)
    assert not _passes(verifier, "def g(x): return x", ([3], 3), setup="def f(x): return x")
    stdio = {"cases": [{"input": "3", "output": "4"}], "setup": "def inc(x): return x + 1"}
    program = Program("print(inc(int(input())))", json.dumps(stdio))
    asserts = {"assert": ["assert f(4) == 2"], "setup": "from math import isqrt"}
    other = Program("def f(x): return isqrt(x)", json.dumps(asserts))
    assert [judgement.passed for judgement in verifier.verify([program, other])] == [True, True]


def test_recursion_has_as_many_calls_as_in_a_module(verifier: Verifier) -> None:
    code = "def f(n): return n and f(n - 1)"
    assert _passes(verifier, code, ([990], 0))
    job = CallJob(code=code, entry_point="f", args_N=((40_000,),), recursion_limit=50_000)
    with Sandbox() as sandbox:
        assert sandbox.run([job])[0].observations_N[0].value == 0


def test_limits_are_for_each_test_and_grow_with_what_is_expected(verifier: Verifier) -> None:
    many = [([n], list(range(n, n + 50_000))) for n in range(1_000_000, 1_000_020)]
    assert _passes(verifier, "def f(n): return list(range(n, n + 50000))", *many)
    matrix = [[row * column for column in range(600)] for row in range(600)]
    assert _passes(
        verifier, "def f(n): return [[r * c for c in range(n)] for r in range(n)]", ([600], matrix)
    )
    text = "x" * 300_000
    assert _passes(verifier, "def f(c): return c * 300000", *[(["x"], text)] * 20)
    prints = "def f(c):\n    print(c * 300000)\n    return 1"
    assert _passes(verifier, prints, *[(["x"], 1)] * 20)
    long = "y" * 9_000_000
    assert _passes(verifier, "def f(c): return c * 9000000", (["y"], long), (["y"], long))


def test_a_value_above_the_limit_fails_its_test_alone() -> None:
    code = "def f(n): return 'x' * n"
    job = CallJob(code=code, entry_point="f", args_N=((9,), (70_000,), (50_000,), (50_000,), (9,)))
    with Sandbox(limits=Limits(wall_s=30.0, output_bytes=1 << 16)) as sandbox:
        seen = sandbox.run([job])[0].observations_N
    assert [one.kind for one in seen] == [
        Ending.FINISHED,
        Ending.OUTPUT_LIMIT,
        Ending.FINISHED,
        Ending.FINISHED,
        Ending.FINISHED,
    ]
    assert [len(seen[index].value) for index in (0, 2, 3, 4)] == [9, 50_000, 50_000, 9]
