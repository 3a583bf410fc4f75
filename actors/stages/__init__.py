"""Stages that jobs are made of: an RL run, evaluation, the probe, trainings, the whole loop.

Each runs on a fleet and leaves files. Begin with `rl_run.py`, the main one.

Imports: `plan` and what is below it; `reward`, `rl`, `conf`.
"""
