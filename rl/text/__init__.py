"""Text of models: tokenizers and chat templates, read from a directory or a hub.

`tokenizer.py` refuses a tokenizer that loses text, `chat_template.py` proves that a template shows
what it is given. Begin with `chat_template.py`.

Imports: `conf`, and the modules of `rl`.
"""
