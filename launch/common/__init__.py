"""Shared parts of the commands: overrides and help, arguments, outputs, plots, Ray jobs.

`cli.py` composes a configuration with Hydra, or fills the keys of a small command; it also holds
the exit codes 0, 1 and 2. Begin there.

Imports: every other package; no command.
"""
