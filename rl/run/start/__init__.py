"""How a run takes its directory: a lock, what an earlier run has left there, what may differ.

Begin with `claim.py`.

Imports: `rl.run`, `rl.base` and `conf`; `rl.run` does not import this.
"""
