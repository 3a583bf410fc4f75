"""Inside the sandbox: the fork server, the process of a program, and what they say to each other.

This folder is shown to the confined processes as it is, and the program can read it. `child.py` is
the fork server, `program.py` runs one program; begin with `child.py`.

Imports: the standard library, and modules of this folder. No import may stand in this file.
"""
