"""Benchmarks of `launch/bench.py`: a module for each value of `what`.

They measure speed, size and correctness against other programs; the documentation's figures come
from them (docs/results/). Begin with `sandbox.py`.

Imports: every other package and `launch.common`; no command.
"""
