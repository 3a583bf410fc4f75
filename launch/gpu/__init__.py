"""Parts of `launch/gpu_check.py`: what only a GPU can show, a module for each group of parts.

Each part runs in a process of its own and writes its figures as it finds them, so that one which
fails or runs too long loses nothing of the others. Begin with `parts`, then `check`.

Imports: every other package and `launch.common`; no command. What `check` imports needs neither
Hydra nor Ray, so that it runs where they are missing.
"""
