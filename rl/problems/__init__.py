"""Problems: canonical rows, the typed forms of tests, and the order of training.

`prompts.py` reads and checks the rows; begin there. `minipy.py` generates small problems, for which
`tiny_model.py` and `warm_start.py` make a policy. `datasets/` converts published data sets,
`making/` recombines known problems.

Imports: `conf`, and the modules of `rl`.
"""
