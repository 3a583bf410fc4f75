"""The terms of the policy's loss: pure functions of numbers at labels.

A page of maths each, to be checked by eye beside the paper that it names; `rl.loss` puts them
together. Begin with `surrogate.py`.

Imports: `conf` only.
"""
