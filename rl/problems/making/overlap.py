"""Overlap of statements with held-out ones, in words, whatever their case and punctuation."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

_WORD = re.compile(r"\w+")

_Words = tuple[str, ...]


class Overlap:
    """Runs of `num_words` words of held-out statements; of a shorter statement all its words.

    >>> overlap = Overlap(["Return the sum of all even numbers.", "Sort it."], 4)
    >>> [overlap.has(text) for text in ("What is the sum of all?", "Now sort it", "The sum of xs")]
    [True, True, False]
    """

    def __init__(self, held_out: Iterable[str], num_words: int) -> None:
        self._num_words = num_words
        self._held_out = [words for text in held_out if (words := _words(text))]
        self._runs: dict[int, set[_Words]] = defaultdict(set)  # by their length
        for words in self._held_out:
            length = min(num_words, len(words))
            self._runs[length].update(_runs(words, length))

    def has(self, text: str) -> bool:
        """Whether a statement has such a run, or is itself a shorter part of a held-out one."""
        words = _words(text)
        if any(run in runs for length, runs in self._runs.items() for run in _runs(words, length)):
            return True
        is_short = 0 < len(words) < self._num_words
        return is_short and any(words in _runs(held, len(words)) for held in self._held_out)


def _words(text: str) -> _Words:
    return tuple(_WORD.findall(text.lower()))


def _runs(words: Sequence[str], length: int) -> Iterator[_Words]:
    for start in range(len(words) - length + 1):
        yield tuple(words[start : start + length])
