"""Faults on purpose: runs whose processes are killed or stopped, beside one that is left alone.

`saboteur.py` is a run that hurts its own processes at chosen moments; `matrix.py` starts such runs
and compares what they leave. Begin with `matrix.py`.
"""
