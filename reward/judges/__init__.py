"""Judges: what gives the completions of one prompt their rewards.

`judge.py` has the protocol and the three judges (reward model, execution, hybrid), `shaping.py` the
step from score to reward. A judge of your own is a module here (docs/howto.md). Begin with
`judge.py`.

Imports: `pairs`, `verify` and what is below them; `rl` and `conf`.
"""
