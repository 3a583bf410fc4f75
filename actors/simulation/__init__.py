"""Simulation: the groups of a run over actors that answer at once, to see what the driver costs.

Imports: `stages` and what is below it; `reward`, `rl`, `conf`.
"""
