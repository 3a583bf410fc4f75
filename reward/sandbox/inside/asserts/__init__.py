"""Asserts as tests: how they are judged beside a program that may be hostile.

`honest.py` decides by the syntax tree whether a program may share a process with its tests,
`plain.py` runs both in one, `strict.py` in two. Begin with `plain.py`; docs/sandbox.md#asserts.

Imports: the standard library, and `reward.sandbox.inside`. No import may stand in this file.
"""
