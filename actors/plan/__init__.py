"""Plan of a run, and its checks: layout, memory, models and prompts, before anything starts.

`checks.py` refuses, `dry_run.py` shows, `memory.py` has the formulas (docs/planning.md). No engine
is loaded. Begin with `plan.py`.

Imports: `serve`, `observe`, `groups` and what is below them; `reward`, `rl`, `conf`.
"""
