#!/usr/bin/env bash
# `evalplus.sanitize` makes wrong programs of right ones: it drops what is decorated, what yields, and most of the top level.
#
# Guess: the function that is asked for and all that it needs is kept; what goes is prose, tests and main guards.
# Seen: kept are imports, classes, functions that hold a `return`, and the first plain assignment to a name. Gone are a
#   decorated function (also the one that is asked for), a decorated class, a generator, a helper that only fills a list
#   or raises, `a, b = 1, 2` and `a = b = 1`, `x += 1`, a second `x = ...`, `table[0] = 1`, loops, `try` around an import, and
#   of two functions of one name the last. All 14 pass their test as written, and none after it.
# Version: evalplus 0.3.1 (the newest), tree-sitter 0.25.2, tree-sitter-python 0.25.0; Python 3.11.
# Hurt: whoever evaluates, or makes pairs, from sanitized answers: a memoized or generator solution counts as wrong, so pass@k
#   falls with style, and a reward model trained on such pairs learns that `@cache` is wrong.
#
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet "evalplus==0.3.1" "tree-sitter==0.25.2" "tree-sitter-python==0.25.0"
venv/bin/python - 2>errors.txt <<'PY' || { tail -5 errors.txt; exit 1; }
import sys
import types

from evalplus.sanitize import sanitize

PLAIN = "def f(n):\n    return 1 if n < 2 else n * f(n - 1)\n"
KEPT = {
    "plain": PLAIN,
    "class": "class S:\n    def run(self, n):\n        return 1 if n < 2 else n * self.run(n - 1)\ndef f(n):\n    return S().run(n)\n",
    "constant": "ONE: int = 1\n" + PLAIN.replace("1 if", "ONE if"),
}
LOST = {
    "decorated function": "from functools import cache\n@cache\n" + PLAIN,
    "decorated class": "from dataclasses import dataclass\n@dataclass\nclass N:\n    v: int\n" + PLAIN.replace("n * f", "N(n).v * f"),
    "generator": "def steps(n):\n    r = 1\n    for i in range(1, n + 1):\n        r *= i\n        yield r\ndef f(n):\n    return list(steps(n))[-1]\n",
    "helper that fills": "def fill(a, n):\n    for i in range(1, n + 1):\n        a.append(a[-1] * i)\ndef f(n):\n    a = [1]\n    fill(a, n)\n    return a[-1]\n",
    "helper that raises": "def check(n):\n    if n < 0:\n        raise ValueError(n)\n" + PLAIN.replace("    return", "    check(n)\n    return"),
    "two at once": "A, B = 1, 2\n" + PLAIN.replace("1 if n < 2", "A if n < B"),
    "starred": "first, *rest = [1, 2]\n" + PLAIN.replace("1 if", "first if"),
    "chained": "A = B = 1\n" + PLAIN.replace("1 if", "B if"),
    "augmented": "x = 0\nx += 1\n" + PLAIN.replace("1 if", "x if"),
    "assigned again": "x = 0\nx = 1\n" + PLAIN.replace("1 if", "x if"),
    "item": "table = {}\ntable[0] = 1\n" + PLAIN.replace("1 if", "table[0] if"),
    "loop": "table = [1]\nfor i in range(1, 9):\n    table.append(table[-1] * i)\ndef f(n):\n    return table[n]\n",
    "import in try": "try:\n    from math import factorial\nexcept ImportError:\n    raise\ndef f(n):\n    return factorial(n)\n",
    "defined again": "def f(n):\n    return 1\n" + PLAIN,
}


def verdict(program: str) -> str:
    module = types.ModuleType("tried")
    sys.modules["tried"] = module
    try:
        exec(program + "\nassert f(4) == 24 and f(5) == 120", module.__dict__)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "right"


as_described = True
for names, is_kept in ((KEPT, True), (LOST, False)):
    for name, program in names.items():
        before, after = verdict(program), verdict(sanitize(program, "f"))
        print(f"{name:20} as written: {before}   sanitized: {after}")
        as_described &= before == "right" and (after == "right") == is_kept
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PY
