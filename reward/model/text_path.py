"""The reward model's text path: problem and code -> the model's own chat template -> token ids.

The same path serves RL, offline scoring, training and serving, so that a score means one thing
everywhere. Code is hostile text: markup in it must never become a special token, or a completion
could end its own turn and speak as the judge.
"""

# tokenizers and transformers are typed in parts; what leaves them is narrowed before use.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from conf.errors import UserError
from reward.model.files import ADAPTERS, AdapterName, check_family
from reward.model.markup import Markup, special_tokens
from reward.model.read_out import padding_that_is_skipped
from rl.text.chat_template import render, writes_date
from rl.text.tokenizer import PROBES, check_vocabulary, load_tokenizer
from rl.types import IntArray, Message

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """The input of a reward model."""

    token_ids: IntArray  # [T] int32
    truncated: bool  # not all of problem and code is in it
    code_start: int  # index of the first token of the code


@dataclass(frozen=True, slots=True)
class _Around:
    """What a template puts around a code, once the problem is known; as the tokenizer reads it."""

    before: str  # up to the code
    after: str
    question: tuple[int, int]  # the characters of the problem


class TextPath:
    """Turn (question, code) into the reward model's token ids.

    They are those of the plain chat template, rendered and tokenised as a whole, for every text
    that spells out no special token. One that does is rendered with these letters sealed, so that
    they are tokenised as text (`reward.model.markup`).

    The score is read at the last token. A sequence that is too long therefore loses tokens from the
    end of the code, then of the problem, and keeps the closing tokens; `truncated` says so, as it
    does when the template leaves out a part of the code (Qwen3's keeps what follows `</think>`).
    `skipped_id` is the padding that plain transformers passes over when it looks for that token.

    Raises:
        UserError: for a template that does not show problem and code once each, or that writes the
            date of the day.
    """

    def __init__(  # noqa: PLR0913 - what a family, a model and a run add
        self,
        tokenizer: PreTrainedTokenizerBase,
        adapter: AdapterName,
        max_tokens: int,
        *,
        system: str | None = None,
        skipped_id: int | None = None,
        key: str = "reward.model",
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._skipped_id = skipped_id
        self._key = key
        check_family(adapter, system)
        self._system = ADAPTERS[adapter].system if system is None else system
        self._question_slot, self._code_slot = uuid.uuid4().hex, uuid.uuid4().hex
        specials = special_tokens(tokenizer)
        self._special_ids = np.array(sorted(specials.values()), dtype=np.int32)
        self._plain: Any = getattr(tokenizer, "backend_tokenizer")  # noqa: B009 - not in the base
        self._markup = Markup(self._plain, specials, key)
        self._around_code = lru_cache(maxsize=256)(self._find_around)
        self._markup_around = self._check_template()
        self._check_probes()

    @classmethod
    def load(  # noqa: PLR0913 - what a family, a model and a run add
        cls,
        directory: str,
        adapter: AdapterName,
        max_tokens: int,
        *,
        system: str | None = None,
        key: str = "reward.model",
        reads_last: bool = False,
    ) -> TextPath:
        """Read the tokenizer of a reward model's directory (or hub id).

        `reads_last` reads the score at the last token also where plain transformers would not, as a
        model that is still to be trained.
        """
        tokenizer = load_tokenizer(directory, key)
        check_vocabulary(tokenizer, directory, key)
        skipped_id = None if reads_last else padding_that_is_skipped(directory)
        return cls(tokenizer, adapter, max_tokens, system=system, skipped_id=skipped_id, key=key)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that was loaded."""
        return self._tokenizer

    def encode(self, question: str, code: str) -> Encoded:
        """Encode one pair; at most `max_tokens` long."""
        return self.encode_all(question, [code])[0]

    def encode_all(self, question: str, codes: Sequence[str]) -> list[Encoded]:
        """Encode the programs of one problem, in one call of the tokenizer."""
        if not codes:
            return []
        sealed = self._markup.seal(question)
        texts = [self._render(sealed, self._markup.seal(code)) for code in codes]
        return [
            self._cut(encoding, text, self._around_code(sealed, spelled), code)
            for (encoding, text, spelled), code in zip(self._read(texts), codes, strict=True)
        ]

    def last_ids(self) -> set[int]:
        """The tokens that texts end with, whatever the program."""
        ends = (self.encode(question, code).token_ids[-1:] for question, code in _probes())
        return {int(token) for end in ends for token in end}

    def forged_turn(self, claim: str) -> str:
        """Markup that ends the assistant's turn, lets the user speak, and opens it again.

        Read by the plain chat template inside a program, it would do that; here it is text.
        """
        before, between, after = self._markup_around
        return f"{after}{before}{claim}{between}"

    # --- the template -----------------------------------------------------------------------------

    def _turns(self, question: str, code: str) -> list[Message]:
        turns = [Message("user", question), Message("assistant", code)]
        return turns if self._system is None else [Message("system", self._system), *turns]

    def _render(self, question: str, code: str) -> str:
        whose = f"{self._key}: its chat template"
        return render(self._tokenizer, self._turns(question, code), whose, ask=False)

    def _check_template(self) -> tuple[str, str, str]:
        """The template's text before the problem, between problem and code, and after."""
        key = self._key
        if not getattr(self._tokenizer, "chat_template", None):
            raise UserError(
                f"{key}: its tokenizer has no chat template, so it is not known how the model "
                "reads problem and code; put the chat_template.jinja of its training beside it"
            )
        text = self._render(self._question_slot, self._code_slot)
        counts = [text.count(slot) for slot in (self._question_slot, self._code_slot)]
        if counts != [1, 1] or text.find(self._question_slot) > text.find(self._code_slot):
            raise UserError(
                f"{key}: its chat template does not show problem and code exactly once; "
                "take a model whose tokenizer has a template for a user and an assistant turn"
            )
        if self._system is not None and self._system.strip() not in text:
            raise UserError(
                f"{key}: its chat template leaves out the system turn that its family is asked "
                "with; take the template that the model was trained with"
            )
        if writes_date(self._tokenizer, self._turns("x", "y"), key, ask=False):
            raise UserError(
                f"{key}: its chat template writes the date of the day into what the model reads, "
                "so scores would change from day to day; copy the model, and write the date of its "
                "training into chat_template.jinja in place of strftime_now"
            )
        before, _, rest = text.partition(self._question_slot)
        between, _, after = rest.partition(self._code_slot)
        return before, between, after

    def _check_probes(self) -> None:
        """Compare both ways to read a text with the template's own ids.

        Raises:
            UserError: when a way differs: scores would be of another text.
        """
        for question, code in _probes():
            turns = [{"role": t.role, "content": t.content} for t in self._turns(question, code)]
            own: Any = self._tokenizer.apply_chat_template(turns, return_dict=False)
            text = self._render(question, code)
            both = (
                self._plain.encode(text, add_special_tokens=False).ids,
                self._markup.tokenizer.encode(
                    self._markup.open(text), add_special_tokens=False
                ).ids,
            )
            if any(ids != list(own) for ids in both):
                raise UserError(
                    f"{self._key}: its chat template, tokenised by itself, gives other ids than "
                    f"apply_chat_template does for {code[:30]!r}; save the tokenizer again with "
                    "save_pretrained of this version of transformers"
                )

    # --- tokens -----------------------------------------------------------------------------------

    def _read(self, texts: Sequence[str]) -> list[tuple[Encoding, str, bool]]:
        """Tokens of rendered texts, with the text that was read, and whether it was sealed."""
        plain = [text for text in texts if not self._markup.is_sealed(text)]
        sealed = [self._markup.open(text) for text in texts if self._markup.is_sealed(text)]
        read = iter(self._plain.encode_batch(plain, add_special_tokens=False))
        opened = iter(self._markup.tokenizer.encode_batch(sealed, add_special_tokens=False))
        others = iter(sealed)
        return [
            (next(opened), next(others), True)
            if self._markup.is_sealed(text)
            else (next(read), text, False)
            for text in texts
        ]

    def _find_around(self, question: str, opened: bool) -> _Around:
        """What stands around a code, as a plain or as an opened text."""
        text = self._render(question, self._code_slot)
        first, _, rest = self._render(self._question_slot, self._code_slot).partition(
            self._question_slot
        )
        between = rest.partition(self._code_slot)[0]
        before, _, after = text.partition(self._code_slot)
        shown = (first, before.removesuffix(between))
        if opened:
            before, after = self._markup.open(before), self._markup.open(after)
            shown = (self._markup.open(shown[0]), self._markup.open(shown[1]))
        return _Around(before, after, (len(shown[0]), len(shown[1])))

    def _cut(self, encoding: Encoding, text: str, around: _Around, code: str) -> Encoded:
        """The ids of one pair, without what is too much and what plain transformers passes over."""
        ids = np.array(encoding.ids, dtype=np.int32)
        start, end = len(around.before), len(text) - len(around.after)
        regular = text.startswith(around.before) and text.endswith(around.after)
        # A template that drops a part of the code shows less than was given, white space aside.
        shown = regular and text[start:end].strip() == code.strip()
        if not regular:  # it shows something of the code elsewhere, as Qwen3's thoughts
            start = _num_common(text, around.before)
            end = max(start, end)
        found = encoding.char_to_token(start) if start < len(text) else len(ids)
        code_start = _first_token(encoding, start, len(ids)) if found is None else found
        if self._skipped_id is not None:
            while ids.size > 1 and ids[-1] == self._skipped_id:
                ids = ids[:-1]
        excess = ids.size - self._max_tokens
        if excess > 0:
            code_end = _first_token(encoding, end, len(ids)) if end < len(text) else len(ids)
            asked = tuple(_first_token(encoding, at, len(ids)) for at in around.question)
            keep = np.ones(ids.size, dtype=bool)
            keep[self._expendable(ids, (code_start, code_end), asked)[:excess]] = False
            code_start -= int((~keep[:code_start]).sum())
            ids = ids[keep][-self._max_tokens :]
        return Encoded(
            token_ids=ids, truncated=excess > 0 or not shown, code_start=min(code_start, ids.size)
        )

    def _expendable(self, ids: IntArray, code: tuple[int, int], asked: tuple[int, ...]) -> IntArray:
        """Places that may go, the first ones first: code and problem from their ends, then markup.

        What closes the code stays: there the score is read.
        """
        all_before = np.arange(code[1])[::-1]
        in_code = all_before >= code[0]
        in_question = (all_before >= asked[0]) & (all_before < asked[1])
        special = np.isin(ids[all_before], self._special_ids)
        order = np.select([in_code, in_question, ~special], [0, 1, 2], default=3)
        return all_before[np.argsort(order, kind="stable")].astype(np.int32)


def _probes() -> list[tuple[str, str]]:
    """Pairs on which the text path has to agree with the plain chat template."""
    question = "Return x doubled.\n\nInput: xs"
    pairs = [(question, code) for code in PROBES]
    pairs += [("\n " + question + " \n", f"\n  {PROBES[0]}\n\n"), ("", ""), ("x", "y")]
    return [*pairs, (question, f"<think>\nwell\n</think>\n\n{PROBES[1]}")]


def _num_common(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _first_token(encoding: Encoding, at: int, num: int) -> int:
    """The first of `num` tokens that ends behind the character `at`."""
    ends = [end for _, end in encoding.offsets[:num]]
    return int(np.searchsorted(np.array(ends), at, side="right"))
