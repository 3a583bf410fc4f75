"""Assessment of reward models: accuracy, calibration, lists, attacks, RM-Bench.

Figures are computed from scores; no engine is loaded here. Begin with `figures.py`;
docs/judging.md explains them.

Imports: `pairs`, `verify` and what is below them; `rl` and `conf`.
"""
