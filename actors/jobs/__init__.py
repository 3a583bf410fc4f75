"""Jobs: what a command starts, from joining the cluster to the last file.

A module for each: an experiment, an evaluation, best-of-N, mining, scoring, verifying, an ablation.
Jobs do not import each other. Begin with `experiment.py`.

Imports: `stages` and what is below it; `reward`, `rl`, `conf`.
"""
