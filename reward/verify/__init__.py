"""Verdicts by execution: programs against the tests of their problems.

`verdict.py` judges one program, `execute.py` and `matrix.py` many; `comparison.py` and
`protocols.py` hold the rules of what a right output is. Begin with `verdict.py`.

Imports: `code`, `model` and `sandbox` of `reward`; `rl` and `conf`.
"""
