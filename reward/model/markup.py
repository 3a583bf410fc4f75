"""Markup of chat templates: special tokens for the template's own only, never in a text.

A chat template and the text that it shows end up in one string, in which a tokenizer cannot tell
who wrote `<|im_end|>`. Here the template's tokens go by names that nobody can guess, so the letters
of a special token inside a program are what they are: letters. Ids, white space that tokens swallow
and what stands where a word begins are those of the plain tokenizer.
"""

# tokenizers and transformers are typed in parts; what leaves them is narrowed before use.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from conf.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def special_tokens(tokenizer: Any) -> dict[str, int]:  # noqa: ANN401 - no common typed base
    """Every special token with its id.

    `all_special_tokens` alone has only those with a role (end of sequence, padding, ...): a chat
    markup token that no role names would be missing.
    """
    added = tokenizer.added_tokens_decoder.values()
    names = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    return {name: int(tokenizer.convert_tokens_to_ids(name)) for name in sorted(names)}


class Markup:
    """Tells a template's special tokens from those that a text spells out."""

    def __init__(self, backend: Tokenizer, specials: Mapping[str, int], whose: str) -> None:
        self._seal = uuid.uuid4().hex  # stands for what a text spells out, until it is tokenised
        self._spelled = [*sorted(specials, key=len, reverse=True), self._seal]
        self._secret = {name: f"{uuid.uuid4().hex}-" for name in specials}
        self._find = re.compile("|".join(map(re.escape, self._spelled)))
        self._sealed = re.compile(
            f"{self._seal}(\\d+);|" + "|".join(map(re.escape, self._spelled[:-1]))
            if specials
            else f"{self._seal}(\\d+);"
        )
        self.tokenizer = _renamed(backend, self._secret, specials, whose)

    def seal(self, text: str) -> str:
        """Spell no special token out: what is left is safe to be shown by a template."""
        return self._find.sub(lambda m: f"{self._seal}{self._spelled.index(m[0])};", text)

    def is_sealed(self, text: str) -> bool:
        """Whether something of a rendered text was spelled out by what it shows."""
        return self._seal in text

    def open(self, rendered: str) -> str:
        """What `tokenizer` reads: the sealed letters, and the template's tokens by their names."""

        def replace(match: re.Match[str]) -> str:
            if match[1] is not None:
                return self._spelled[int(match[1])]
            return self._secret[match[0]]

        return self._sealed.sub(replace, rendered)


def _renamed(
    backend: Tokenizer, secret: Mapping[str, str], ids: Mapping[str, int], whose: str
) -> Tokenizer:
    """A copy of a tokenizer in which special tokens have other names, and the same ids."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - drivers load none

    state: dict[str, Any] = json.loads(backend.to_str())
    for token in state.get("added_tokens") or []:
        token["content"] = secret.get(token["content"], token["content"])
    state["post_processor"] = None  # it would add tokens, and nothing asks it to
    state["truncation"] = state["padding"] = None
    _rename_model(state["model"], secret)
    copy = Tokenizer.from_str(json.dumps(state))
    for name, other in secret.items():
        if copy.token_to_id(other) != ids[name]:
            raise UserError(
                f"{whose}: its special token {name!r} cannot be told from the same letters in a "
                f"program (id {ids[name]}, and {copy.token_to_id(other)} under another name); give "
                "a model whose tokenizer.json lists it among added_tokens"
            )
    return copy


def _rename_model(model: dict[str, Any], secret: Mapping[str, str]) -> None:
    """Rename tokens in a vocabulary; a merge that would spell one out goes with its name."""
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        entries = cast("dict[str, int]", vocab)
        model["vocab"] = {secret.get(name, name): index for name, index in entries.items()}
    elif isinstance(vocab, list):  # Unigram: pieces with their scores
        pieces = cast("list[tuple[str, float]]", vocab)
        model["vocab"] = [[secret.get(name, name), score] for name, score in pieces]
    unknown = model.get("unk_token")
    if isinstance(unknown, str):
        model["unk_token"] = secret.get(unknown, unknown)
    if model.get("merges"):
        model["merges"] = [m for m in model["merges"] if not _spells(m, secret)]


def _spells(merge: str | list[str], secret: Mapping[str, str]) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return bool({left, right, left + right} & secret.keys())
