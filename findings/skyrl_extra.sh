#!/usr/bin/env bash
# `skyrl[fsdp]` is resolved to a release of SkyRL that has no trainer, and no error says so.
#
# Guess: the newest release with the extra is taken, or the resolver fails.
# Seen: 0.4.0 and 0.3.0 pin packages in the extra that PyPI does not have (flashinfer-jit-cache of 0.4.0 is
#   on an index of its own), so resolvers go back to 0.0.1, which has no such extra and 1 package to
#   install. uv warns in one line that the extra is missing, and ends with exit code 0.
# Version: skyrl 0.4.0 and older, uv 0.13.9, resolving for Python 3.12.
# Hurt: whoever installs it by its documented extra gets an `import skyrl` that works and has no
#   skyrl.train; a lock file made so is of that release. `skyrl[fsdp]==0.4.0` fails, and names the package.
#
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet "uv==0.13.9" 2>/dev/null
resolve() { echo "$1" > wanted.in; venv/bin/uv pip compile --no-python-downloads --python-version 3.12 wanted.in 2>messages.txt; }
free="$(resolve "skyrl[fsdp]<=0.4.0" | grep -v '#')"
grep "does not have an extra" messages.txt || { cat messages.txt; exit 1; }
echo "skyrl[fsdp]<=0.4.0 is resolved to: $free"
resolve "skyrl[fsdp]==0.4.0" > /dev/null && { echo "the behaviour has changed: 0.4.0 can be resolved"; exit 1; }
grep -o "there is no version of [^{]*" messages.txt
[ "$free" = "skyrl==0.0.1" ] || { echo "the behaviour has changed"; exit 1; }
echo "as described"
