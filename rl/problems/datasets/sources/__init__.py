"""Readers of published data sets: one module for each, or for a family of them.

A reader makes a prompt of one raw row and leaves the faults in the row. A new one is a module here
and an entry of `rl/problems/datasets/registry.py`. Begin with `taco.py`, the shortest.

Imports: `conf`, and the modules of `rl`; not each other.
"""
