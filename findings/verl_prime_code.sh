#!/usr/bin/env bash
# verl's grader of code (`reward_score.prime_code`) gives right programs of nine ordinary forms no reward.
#
# Guess: a right program that reads its input and prints the answer has a reward of 1, however it is written.
# Seen: it is put into a function, between imports of ours and with a `StringIO` for its input. A counter that a helper
#   declares `global` is then no global (NameError), `eval` in a comprehension sees no variables of the program (before
#   Python 3.12), `from __future__ import` and a star import below the first statement are syntax errors, `sys.stdin.buffer`
#   and `sys.stdout.buffer` do not exist, `open(0)` reads nothing, a main guard that is not the last statement never runs, and
#   the builtin `exit` is None. All nine print what the test wants as scripts; all nine get 0.
# Version: verl 0.9.1, numpy 2.3.5; Python 3.11.
# Hurt: whoever trains with it on problems of standard input: the policy is paid for not reading fast and for not using
#   `global`, pass rates before and after training differ by style, and filters by pass rate drop solvable problems.
#
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-deps "verl==0.9.1" "numpy==2.3.5"
venv/bin/python - 2>errors.txt <<'PY' || { tail -5 errors.txt; exit 1; }
import contextlib
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

# The package alone: the top of verl imports its engines.
found = importlib.util.find_spec("verl")
sys.path.insert(0, str(Path(found.submodule_search_locations[0]) / "utils" / "reward_score"))
import prime_code

ANSWER = "n = int(input())\nprint(sum(map(int, input().split())))\n"
HELPER = "total = 0\ndef add(x):\n    global total\n    total += x\n"
RIGHT = {
    "reads lines": ANSWER,
    "sys.stdin.read": "import sys\n_, *rest = sys.stdin.read().split()\nprint(sum(map(int, rest)))\n",
    "main guard at the end": "def main():\n    n = input()\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()\n",
}
REFUSED = {
    "global in a helper": HELPER + "input()\nfor x in input().split():\n    add(int(x))\nprint(total)\n",
    "eval in a comprehension": "n = int(input())\na = input().split()\nprint(sum(eval('int(a[i])') for i in range(n)))\n",
    "future import": "from __future__ import annotations\n" + ANSWER,
    "late star import": "input()\nfrom math import *\nprint(sum(map(int, input().split())))\n",
    "sys.stdin.buffer": "import sys\n_, *rest = sys.stdin.buffer.read().split()\nprint(sum(map(int, rest)))\n",
    "sys.stdout.buffer": "import sys\n" + ANSWER.replace("print(", "sys.stdout.buffer.write(b'%d' % "),
    "open(0)": "_, *rest = open(0).read().split()\nprint(sum(map(int, rest)))\n",
    "statement after main": RIGHT["main guard at the end"] + "finished = True\n",
    "exit()": ANSWER + "exit()\n",
}
TESTS = {"inputs": ["3\n1 2 3\n"], "outputs": ["6\n"]}

as_described = True
for names, reward in ((RIGHT, 1.0), (REFUSED, 0.0)):
    for name, program in names.items():
        alone = subprocess.run([sys.executable, "-c", program], input=TESTS["inputs"][0], capture_output=True, text=True)
        with contextlib.redirect_stdout(io.StringIO()):
            got, _ = prime_code.compute_score(f"```python\n{program}```", json.dumps(TESTS), continuous=True)
        print(f"{name:24} as a script: {alone.stdout.strip()!r}   reward: {float(got)}")
        as_described &= alone.stdout.strip() == "6" and float(got) == reward
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PY
