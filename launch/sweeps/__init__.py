"""Sweeps: `--multirun` and the runs of `launch/tune.py` (docs/sweeps.md).

Each job is the command again, in a process and a run directory of its own. Begin with `sweep.py`.

Imports: every other package and `launch.common`; no command.
"""
