"""What a judged group teaches: answers that were cut off, groups without differences.

Begin with `truncated.py`.

Imports: `conf` and `rl.types` only.
"""
