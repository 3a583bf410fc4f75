"""A run beside its steps: what it keeps on disk, and the figures of its evaluations.

Checkpoints, rollout files, the timeline; the probe and the hacking alarm; pass@k with intervals.
Nothing here samples or executes: `actors.stages` does. Begin with `checkpoint.py` or `alarm.py`.

Imports: `conf`, and the modules of `rl`.
"""
