"""Sandbox: runs untrusted programs and reports what each was seen to do (docs/sandbox.md).

`levels.py` finds how strongly this machine can confine a program, `pool.py` runs them, `report.py`
reads what came back. `inside/` is what runs within. Begin with `pool.py`.

Imports: `rl` and `conf`. This file is loaded inside the sandbox: no import may stand in it.
"""
