"""Commands: one file each, started as `python launch/NAME.py key=value`.

A command declares its keys, checks its input and starts a job of `actors.jobs`; its docstring is
its help. What they share is in `common/`. Begin with `train.py`.

Imports: every other package, and Hydra; never ray, and never another command.
"""
