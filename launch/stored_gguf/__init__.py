"""GGUF files and the Hugging Face directories that they become, for `launch/import_gguf.py`.

Begin with `conversion.py`.

Imports: `actors.engines.stored`, `rl.base`, `conf`; no command.
"""
