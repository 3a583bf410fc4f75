"""Settings: the typed schema of every key, its checks, and the tree of exceptions.

`schema.py` declares the keys (meaning, default, range), `relations.py` the rules between them,
`validate.py` makes a checked configuration of composed YAML, `errors.py` holds the exceptions. The
folders hold the YAML groups. Begin with `schema.py`.

Imports: nothing of this tree, and no library that computes.
"""
