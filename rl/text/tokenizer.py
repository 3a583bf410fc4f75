"""A model's tokenizer, read so that it says what it is given, or refused.

`tokenizer.json` is the authority: it is what a model was trained with. A library that builds a
tokenizer of the class that `tokenizer_config.json` names may build another one (all white space
lost, numbers cut elsewhere), and every prompt and every score would then be of another text.
"""

# transformers and tokenizers are typed in parts; what leaves them is narrowed before use.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from conf.errors import UserError
from rl.text.hub_files import first_line, model_config, model_file, text_config
from rl.types import IntArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# What a program is made of; each is what a tokenizer has been seen to lose or to cut elsewhere.
# All are in Unicode's normal form C, which Qwen's tokenizers bring every text into. None begins
# with a space: at the start of a text, tokenizers with word marks (Llama) do not tell it from none.
PROBES = (
    "def f(xs):\n    for x in xs:\n        if x % 2 == 0:\n            return x\n    return None\n",
    "class A:\n\tdef g(self):\n\t\treturn 'a\\tb'\n\n\n\tdef h(self): pass\n",
    "if x:\n    x = [1 , 2]\n\n        # they 're not n't .  two  spaces   three \n",
    "total += 1234567890 * 3.14159 - 0x1F // 1_000\n",
    "print('caf\u00e9 \u03c0 \u2248 3 \u4f60\u597d \U0001f642')  # \u00fc\u00df \u0416\n",
)
_MAX_SHOWN = 40  # characters of a text in a message


def load_tokenizer(model: str, key: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's directory or hub id, whose ids are those of `tokenizer.json`.

    Where the class that `tokenizer_config.json` names reads something else, `tokenizer.json` is
    read as it is. `key` is what a command calls the model, for messages.

    Raises:
        UserError: when there is no tokenizer, when none that can be built agrees with
            `tokenizer.json`, or when programs do not come back from it as they went in.
    """
    return read_tokenizer(model, key)[0]


def tokenizer_note(model: str, key: str) -> str | None:
    """What to tell people of a tokenizer that is not the one its configuration names."""
    return read_tokenizer(model, key)[1]


def read_tokenizer(model: str, key: str) -> tuple[PreTrainedTokenizerBase, str | None]:
    """`load_tokenizer`, and what to tell people where it is not the one that is configured."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: PLC0415 - seconds

    named: Any = _build(AutoTokenizer.from_pretrained, model, key)
    built = type(named).__name__
    if not getattr(named, "is_fast", False):
        raise UserError(
            f"{key}: the tokenizer of {model} ({built}) is not one of the `tokenizers` library; "
            "convert it to a tokenizer.json, and save it with save_pretrained"
        )
    own = _own(model)
    chosen, note = named, None
    if own is not None and _difference(named, own) is not None:
        chosen = _build(PreTrainedTokenizerFast.from_pretrained, model, key)
        where = _difference(chosen, own)
        if where is not None:
            raise UserError(
                f"{key}: the tokenizer of {model} reads {where[:_MAX_SHOWN]!r} as other token ids "
                "than its tokenizer.json does; tokenizer_config.json changes what was trained: "
                "give a directory whose tokenizer was saved with save_pretrained"
            )
        note = (
            f"{key}: {model} names a tokenizer class ({built}) that does not read what its "
            "tokenizer.json says; tokenizer.json is read as it is"
        )
    lost = lost_text(chosen)
    if lost is not None:
        raise UserError(f"{key}: the tokenizer of {model} cannot say what it reads: {lost}")
    return chosen, note


def _build(build: Callable[[str], Any], model: str, key: str) -> Any:  # noqa: ANN401 - a tokenizer
    try:
        return build(model)
    except Exception as error:  # a damaged file raises whatever the library happens to meet
        raise UserError(
            f"{key}: the tokenizer of {model} cannot be loaded ({first_line(error)}); fetch the "
            "model again, or give another one"
        ) from error


def _own(model: str) -> Tokenizer | None:
    """`tokenizer.json` as the `tokenizers` library reads it; None where a hub model has none."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - drivers load none

    path = model_file(model, "tokenizer.json")
    if path is None:
        return None
    own = Tokenizer.from_file(str(path))
    own.no_truncation()
    own.no_padding()
    return own


def _difference(tokenizer: Any, own: Tokenizer) -> str | None:  # noqa: ANN401
    """The first text that the two read differently; None when they agree."""
    special = [str(token.content) for token in own.get_added_tokens_decoder().values()]
    for token in special:
        if tokenizer.convert_tokens_to_ids(token) != own.token_to_id(token):
            return token
    for text in (*PROBES, *_turns(special)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids != own.encode(text, add_special_tokens=False).ids:
            return text
    return None


def _turns(tokens: Sequence[str]) -> Iterator[str]:
    """Programs between added tokens, as a chat template puts them."""
    for token in dict.fromkeys((*tokens[:8], *tokens[-8:])):
        yield f"{token}\n  {PROBES[0]}{token}  x = 1{token}"


def lost_text(tokenizer: Any) -> str | None:  # noqa: ANN401 - tokenizers have no common typed base
    """What a program loses on its way through a tokenizer, for people; None for nothing."""
    for text in PROBES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        back = decode(tokenizer, ids, skip_special_tokens=False)
        if back != text:
            at = next(
                (i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b),
                min(len(text), len(back)),
            )
            start = max(0, at - 10)
            return (
                f"a program with {text[start : at + 15]!r} comes back with "
                f"{back[start : at + 15]!r}; give a model whose tokenizer.json keeps white space "
                "and all of Unicode (byte-level, or with byte fallback)"
            )
    return None


def decode(
    tokenizer: Any,  # noqa: ANN401 - tokenizers have no common typed base
    token_ids: Sequence[int] | IntArray,
    *,
    skip_special_tokens: bool = True,
) -> str:
    """The text of token ids, with every space where it was.

    The configuration of some tokenizers (Llama-3) asks for a clean-up of English prose, which joins
    ` ,` and ` n't` also inside of programs.
    """
    text = tokenizer.decode(
        token_ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
    )
    return cast(str, text)


def character_ends(tokenizer: Any, token_ids: IntArray) -> IntArray:  # noqa: ANN401
    """Where each token ends in the text that `decode` gives of all; special tokens are empty.

    A character of several tokens ends with the last of them.
    """
    from tokenizers.decoders import DecodeStream  # noqa: PLC0415 - drivers load none

    stream = DecodeStream(skip_special_tokens=True)
    pieces = (stream.step(tokenizer.backend_tokenizer, int(one)) for one in token_ids)
    return np.cumsum([len(piece or "") for piece in pieces], dtype=np.int32)


def check_vocabulary(tokenizer: Any, model: str, key: str) -> None:  # noqa: ANN401
    """Refuse a model whose tokenizer knows more tokens than the model has embeddings.

    Raises:
        UserError: naming the first token that the model could not be given.
    """
    num_rows = embedding_rows(model_config(model))
    if num_rows is None:
        return
    above = {i: token for token, i in tokenizer.get_vocab().items() if i >= num_rows}
    if above:
        first = min(above)
        raise UserError(
            f"{key}: the tokenizer of {model} knows {len(above)} tokens that the model has no "
            f"embedding for: the first is {above[first]!r} with id {first}, and vocab_size is "
            f"{num_rows}; resize the model (resize_token_embeddings) and train the new rows, or "
            "give the tokenizer that belongs to it"
        )


def embedding_rows(config: dict[str, Any]) -> int | None:
    """Tokens that a model has embeddings for, as its config.json states them."""
    for part in (config, text_config(config)):
        if isinstance(part.get("vocab_size"), int):
            return part["vocab_size"]
    return None
