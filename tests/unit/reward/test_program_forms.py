"""A right program passes in whatever form it is written: other graders refuse some of these."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from reward.code.extract import ExtractConfig, extract
from reward.sandbox.pool import Limits
from reward.verify.verdict import Program, Verifier
from rl.types import Verdict

pytestmark = pytest.mark.unit

_ANSWER = "n = int(input())\nprint(sum(map(int, input().split())))\n"
_MAIN = f"def main():\n    {_ANSWER.replace(chr(10), chr(10) + '    ')}\n"
_HELPER = "total = 0\ndef add(x):\n    global total\n    total += x\n"
_ADDED = "input()\nfor x in input().split():\n    add(int(x))\nprint(total)"
_GUARD = "if __name__ == '__main__':\n    "
# The sum of the second line of "3\n1 2 3\n".
_SCRIPTS = {
    "global in a helper": _HELPER + _ADDED,
    "global under a main guard": _HELPER + _GUARD + _ADDED.replace("\n", "\n    "),
    "eval in a comprehension": "n = int(input())\na = input().split()\n"
    "print(sum(eval('int(a[i])') for i in range(n)))\n",
    "future import": "from __future__ import annotations\n" + _ANSWER,
    "late star import": "input()\nfrom math import *\nprint(sum(map(int, input().split())))\n",
    "binary input": "import sys\nread = sys.stdin.buffer.readline\n"
    + _ANSWER.replace("input", "read"),
    "binary output": "import sys\n" + _ANSWER.replace("print(", "sys.stdout.buffer.write(b'%d' % "),
    "open(0)": "_, *rest = open(0).read().split()\nprint(sum(map(int, rest)))\n",
    "os.read": "import os\n_, *rest = os.read(0, 99).split()\nprint(sum(map(int, rest)))\n",
    "all lines": "import sys\nlines = [*sys.stdin]\nprint(sum(map(int, lines[1].split())))\n",
    "until the end": "rows = []\nwhile True:\n    try:\n        rows.append(input())\n"
    "    except EOFError:\n        break\nprint(sum(map(int, rows[1].split())))\n",
    "statement after main": f"{_MAIN}{_GUARD}main()\nfinished = True\n",
    "a thread with a larger stack": "import threading\n" + _MAIN + "threading.stack_size(1 << 26)\n"
    "thread = threading.Thread(target=main)\nthread.start()\nthread.join()\n",
    "exit()": _ANSWER + "exit()\n",
    "sys.exit(0)": "import sys\n" + _ANSWER + "sys.exit(0)\n",
    "text over lines": "text = '''\nfrom here\n%d\n'''\n"
    + _ANSWER.replace("print(", "print(text.split()[2] % "),
    "asyncio": "import asyncio\n" + _MAIN.replace("def", "async def") + "asyncio.run(main())\n",
}
_PLAIN = "def f(n):\n    return 1 if n < 2 else n * f(n - 1)\n"
# f(n) is the factorial of n.
_FUNCTIONS = {
    "decorated function": "from functools import cache\n@cache\n" + _PLAIN,
    "decorated class": "from dataclasses import dataclass\n@dataclass\nclass N:\n    v: int\n"
    + _PLAIN.replace("n * f", "N(n).v * f"),
    "generator": "def steps(n):\n    r = 1\n    for i in range(1, n + 1):\n        r *= i\n"
    "        yield r\ndef f(n):\n    return list(steps(n))[-1]\n",
    "coroutine": "import asyncio\nasync def g(n):\n    return 1 if n < 2 else n * await g(n - 1)\n"
    "def f(n):\n    return asyncio.run(g(n))\n",
    "helper that fills": "def fill(a, n):\n    for i in range(1, n + 1):\n"
    "        a.append(a[-1] * i)\ndef f(n):\n    a = [1]\n    fill(a, n)\n    return a[-1]\n",
    "helper by its name": _PLAIN.replace("f(", "g(") + "def f(n):\n    return globals()['g'](n)\n",
    "alias": _PLAIN.replace("f(", "g(") + "f = g\n",
    "lambda": "f = lambda n: 1 if n < 2 else n * f(n - 1)\n",
    "several assignments": "(one := 0)\none += 1\nA, B = one, 2\n"
    "first, *rest = [A, B]\nC = D = rest[0]\n" + _PLAIN.replace("1 if n < 2", "first if n < D"),
    "assigned again": "x = 0\nx = 1\n" + _PLAIN.replace("1 if", "x if"),
    "defined again": "def f(n):\n    return 1\n" + _PLAIN,
    "loop": "table = {}\ntable[0] = 1\nfor i in range(1, 9):\n    table[i] = table[i - 1] * i\n"
    "def f(n):\n    return table[n]\n",
    "import in try": "try:\n    from math import factorial\nexcept ImportError:\n"
    "    factorial = None\ndef f(n):\n    return factorial(n)\n",
    "attribute of a class": "class S:\n    pass\nS.one = 1\n" + _PLAIN.replace("1 if", "S.one if"),
    "defined in a branch": "import sys\nif sys.version_info >= (3,):\n"
    "    def g(n):\n        return 1 if n < 2 else n * g(n - 1)\ndef f(n):\n    return g(n)\n",
}
_SCRIPT_TESTS = json.dumps([{"input": "3\n1 2 3\n", "output": "6\n"}])
_FUNCTION_TESTS = json.dumps({"assert": ["assert f(4) == 24", "assert f(5) == 120"]})


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(limits=Limits(wall_s=20.0, total_s=60.0)) as verifier:
        yield verifier


@pytest.mark.parametrize(
    ("programs", "tests"),
    [(_SCRIPTS, _SCRIPT_TESTS), (_FUNCTIONS, _FUNCTION_TESTS)],
    ids=["scripts", "functions"],
)
def test_a_right_program_passes_in_each_form(
    verifier: Verifier, programs: dict[str, str], tests: str
) -> None:
    codes = [
        extract(f"```python\n{code.strip()}\n```", ExtractConfig()).code
        for code in programs.values()
    ]
    results = verifier.verify([Program(code, tests, None) for code in codes])
    refused = {
        name: (result.verdict, result.detail)
        for name, result in zip(programs, results, strict=True)
        if result.verdict is not Verdict.PASSED
    }
    assert not refused
