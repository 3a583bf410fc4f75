#!/usr/bin/env bash
# SIGTERM to the process group of a script that called ray.init() ends it in the middle of its `finally`.
#
# Guess: SIGTERM ends the script through Ray's own handler (sys.exit), whatever else gets it; its `finally` is run.
# Seen: Ray's GCS and raylet are in the process group of the script and end with the signal. The `finally` begins, and the first
#   question to Ray in it never returns: Ray's C++ part ends the process (exit code 1 or 134). No exception is
#   raised, and nothing after that question is run. SIGTERM to the script alone is as guessed.
# Version: ray 2.60.0; Python 3.11.
# Hurt: whoever runs a training under `timeout`, which signals the group, or stops it with `kill -- -PGID`, and saves or
#   gives back anything at its end.
#
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet "ray==2.60.0"
cat >script.py <<'PY'
import time

import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
print("begun", flush=True)
try:
    time.sleep(60)
finally:
    print("finally", flush=True)
    try:
        print(len(ray.nodes()), "node", flush=True)
    except BaseException as error:
        print("raised", type(error).__name__, flush=True)
    print("saved", flush=True)
PY
stop() { # to whom: the script alone, or its process group
    touch "$1.txt"
    setsid venv/bin/python script.py >"$1.txt" 2>"$1.err" &
    local pid=$!
    until grep -q begun "$1.txt"; do sleep 0.2; done
    local began=$SECONDS
    if [ "$1" = group ]; then kill -TERM -- "-$pid"; else kill -TERM "$pid"; fi
    local code=0
    wait "$pid" || code=$?
    echo "$1: exit code $code after $((SECONDS - began)) s; said: $(tr '\n' ';' <"$1.txt")"
}
venv/bin/python -c 'import ray; print("ray", ray.__version__)'
stop alone
stop group
if grep -q saved alone.txt && grep -q finally group.txt && ! grep -q -e saved -e raised group.txt; then
    echo "as described"
else
    echo "the behaviour has changed"
    exit 1
fi
