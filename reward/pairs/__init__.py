"""Preference pairs: of one problem, a program that passes its tests and one that fails.

`mining.py` pairs the programs of rollouts, `near_miss.py` makes negatives, `pairs.py` is the file
format. Begin with `mining.py`; docs/reward_model.md.

Imports: `verify` and what is below it; `rl` and `conf`.
"""
