#!/usr/bin/env bash
# `datasets` makes floats of all expected outputs of a JSON file when one of them is above 64 bits.
#
# Guess: an integer that does not fit is refused, or kept as text; from_list() does refuse it.
# Seen: load_dataset("json") gives the column the type float64. 25! comes back inexact, and the 120 of 5!, in another
#   row, as 120.0. Nothing is said, unless a file (or a block of 10 MiB) that comes before has small integers
#   alone: then it fails with "was truncated converting to int64". So the order of the files decides.
# Version: datasets 5.2.0, pyarrow 26.0.1; Python 3.11.
# Hurt: whoever loads problems with factorials or Fibonacci numbers as tests: a right program prints 120, and
#   the test wants 120.0; where values are compared, no program returns the rounded number.
#
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet "datasets==5.2.0" "pandas==3.1.1" "pyarrow==26.0.1"
HF_DATASETS_CACHE="$folder/cache" HF_HUB_OFFLINE=1 venv/bin/python - 2>errors.txt <<'PY' || { tail -5 errors.txt; exit 1; }
import json
import math
import sys

import datasets


def write(name: str, numbers: list[int]) -> str:
    with open(name, "w") as file:
        for n in numbers:
            file.write(json.dumps({"tests": [{"input": [n], "output": math.factorial(n)}]}) + "\n")
    return name


def outputs(*files: str) -> list[float] | str:
    try:
        rows = datasets.load_dataset("json", data_files=list(files), split="train")
    except datasets.exceptions.DatasetGenerationError as error:
        return f"{type(error.__cause__).__name__}: {error.__cause__}"
    return [row["tests"][0]["output"] for row in rows]


small, big, both = write("small.jsonl", [5]), write("big.jsonl", [25]), write("both.jsonl", [5, 25])
found = {"one file": outputs(both), "big first": outputs(big, small), "small first": outputs(small, big)}
print(f"datasets {datasets.__version__}; given {[math.factorial(n) for n in (5, 25)]}")
for name, what in found.items():
    print(f"{name:12} {what}")
rounded = float(math.factorial(25))
as_described = found["one file"] == [120.0, rounded] and found["big first"] == [rounded, 120.0]
as_described &= all(isinstance(value, float) for value in found["one file"]) and int(rounded) != math.factorial(25)
as_described &= "truncated converting to int64" in found["small first"]
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PY
