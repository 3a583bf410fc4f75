"""Code as text: from a completion to a program, when two programs are the same, small edits.

Nothing is run here. `extract.py` finds the one program of a completion, or the reason why there is
none (docs/extraction.md); begin there. `python_source.py` says what is Python, `grammars.py` what
is a program in another language; `fences.py` shows a program so that it cannot end its block,
`statements.py` reads what an answer states.

Imports: `rl` and `conf`; nothing else of `reward`.
"""
