"""Where plain transformers reads a score, and which padding leaves it there.

Its sequence classifiers look for the last token that is not padding. Where a chat template ends
with the very token that pads, that is an earlier one than the last.
"""

from __future__ import annotations

from rl.hub_files import model_config, text_config


def padding_that_is_skipped(model: str) -> int | None:
    """The padding that a sequence classifier passes over at the end of a text.

    None for token classifiers and policies, which are read at their last token.
    """
    config = model_config(model)
    names: list[object] = config.get("architectures") or []
    if not any(str(name).endswith("ForSequenceClassification") for name in names):
        return None
    found = text_config(config).get("pad_token_id")
    return found if isinstance(found, int) else None
