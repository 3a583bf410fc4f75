"""Reward model as files and text: directory, labels, text path, read-out, golden scores.

No engine is loaded here: what would be read wrongly is refused before one starts (docs/models.md).
Begin with `text_path.py`, which turns problem and code into token ids.

Imports: `rl` and `conf`; nothing else of `reward`.
"""
