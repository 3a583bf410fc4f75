"""Processes: everything that knows Ray, vLLM or DeepSpeed.

From the bottom up: `cluster` and `engines`; `groups`; `serve` and `observe`; `plan`; `stages`;
`jobs`, which the commands start. Begin with `jobs/experiment.py`, then `groups/fleet.py`.

Imports: `reward`, `rl`, `conf`; within this package downwards only.
"""
