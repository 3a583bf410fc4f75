"""Recipes: what a step asks of the policy, what an answer earns, and what is learned from it.

`recipe.py` has the protocol and its default, GRPO on programs; each other module is one published
system on the same step. A recipe of your own needs no change here (docs/recipes.md). Begin with
`recipe.py`.

Imports: `rl` and `conf`.
"""
