#!/usr/bin/env bash
# `datasets` makes numbers and lists of texts that look like JSON, in columns whose values have no one type.
#
# Guess: a column of arguments (texts here, lists there), which `datasets` keeps as JSON, gives back what
#   was put in, for it says decode=True.
# Seen: a text that its JSON reader takes is stored without quotes (Json.encode_example, json_encode_field)
#   and comes back as a number or a list: "0101" as 101, "12" as 12, "[1]" as [1]. Floats lose digits:
#   ten after the point are kept. Nothing is said, by load_dataset("json"), from_list() or to_parquet().
# Version: datasets 5.2.0, pandas 3.1.1, pyarrow 26.0.1; Python 3.11.
# Hurt: whoever converts tests of programs (HumanEval+: "0101" is an argument of string_xor) to Parquet:
#   no right program passes any more, or other ones do.
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
import sys

import datasets
import pyarrow.parquet as pq

given = ["0101", "12", "[1]", "x", [1], [0.123456789012345]]
with open("rows.jsonl", "w") as file:
    file.write(json.dumps({"args": given}) + "\n")
read = datasets.load_dataset("json", data_files="rows.jsonl", split="train")
read.to_parquet("rows.parquet")
print(f"datasets {datasets.__version__}, {read.features}")
print(f"in     {given}\nout    {read[0]['args']}")
cells = pq.read_table("rows.parquet").to_pylist()[0]["args"]
print(f"stored {cells}")
as_described = read[0]["args"][:5] == [101, 12, [1], "x", [1]] and cells[:4] == ["0101", "12", "[1]", '"x"']
as_described &= read[0]["args"][5] != given[5]
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PY
