#!/usr/bin/env bash
# peft: the same LoRA adapter, saved by two processes, has two different adapter_config.json.
#
# Guess: `save_pretrained` of one configuration writes the same bytes whenever it is called, as the
#   weights beside it do (safetensors sorts its names).
# Seen: `target_modules` is kept as a set and written in the order that its hashes happen to have, which
#   Python draws anew for each process. With four layers the first three processes wrote three orders.
# Version: peft 0.21.2, transformers 5.19.0; Python 3.11.
# Hurt: whoever compares or names adapters by content: checksums in a manifest, a resumed run that is
#   compared with the one that was not cut, stores that keep a file once, caches of merged models.
#
# Installs the pinned packages of requirements/cpu.lock into a folder of its own and runs none of
# this project's code. Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail

lock="$(cd "$(dirname "$0")/.." && pwd)/requirements/cpu.lock"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
grep -v '^-e ' "$lock" > packages.txt
venv/bin/pip install --quiet --no-deps -r packages.txt

cat > save.py <<'PY'
import sys
from pathlib import Path

from peft import LoraConfig

layers = ["q_proj", "k_proj", "v_proj", "o_proj"]
LoraConfig(r=8, target_modules=layers).save_pretrained(sys.argv[1])
print(Path(sys.argv[1], "adapter_config.json").read_text().split('"target_modules": ')[1].split("]")[0])
PY
for seed in 1 2 3; do  # what Python draws for itself where PYTHONHASHSEED is not set
  PYTHONHASHSEED=$seed venv/bin/python save.py "saved-$seed"
  PYTHONHASHSEED=$seed venv/bin/python save.py "again-$seed" > /dev/null
  cmp "saved-$seed/adapter_config.json" "again-$seed/adapter_config.json"
done
different="$(sha256sum saved-*/adapter_config.json | cut -d' ' -f1 | sort -u | wc -l)"
echo "one configuration, three processes: $different different files"
test "$different" -gt 1
