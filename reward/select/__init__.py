"""Selection of one of N programs: the selectors, and what they are worth over N.

`select.py` has the rules as pure functions, `best_of_n.py` the figures. Begin with `select.py`;
docs/best_of_n.md.

Imports: `pairs`, `verify` and what is below them; `rl` and `conf`.
"""
