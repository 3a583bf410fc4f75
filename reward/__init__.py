"""Judging code: programs out of completions, reward models, the sandbox, verdicts, pairs.

From the bottom up: `code`, `model` and `sandbox`; `verify`; `pairs`; then what uses scores and
verdicts: `judges`, `train`, `assess`, `select`. Begin with `judges/judge.py`.

Imports: `rl` and `conf`. This file is loaded inside the sandbox: no import may stand in it.
"""
