"""Read-out of a score: where plain transformers takes it, and which padding leaves it there.

Its sequence classifiers look for the last token that is not padding. Where a chat template ends
with the very token that pads, that is an earlier one than the last.
"""

from __future__ import annotations

from typing import Any

from conf.errors import UserError
from reward.model.markup import special_tokens
from rl.text.hub_files import model_config, text_config


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


def choose_padding(tokenizer: Any, last_ids: set[int], num_rows: int | None, key: str) -> int:  # noqa: ANN401 - tokenizers have no common typed base
    """A padding token for a sequence classifier whose texts end with one of `last_ids`.

    Its own, unless a text can end with it: then plain transformers would pass over the end of the
    text as well. Else another special token, which no program can spell out.

    Raises:
        UserError: when every special token is one that a text ends with.
    """
    specials = special_tokens(tokenizer)
    unused = [tokenizer.unk_token_id, tokenizer.bos_token_id, *sorted(specials.values())]
    for found in (tokenizer.pad_token_id, *unused):
        fits = isinstance(found, int) and (num_rows is None or found < num_rows)
        if fits and found not in last_ids:
            return found
    names = ", ".join(specials) or "none"
    raise UserError(
        f"{key}: each of its special tokens ({names}) ends a text of its chat template, so none is "
        "left for padding, and plain transformers could not tell where a text ends; add a padding "
        "token to the base (tokenizer.add_special_tokens and model.resize_token_embeddings)"
    )
