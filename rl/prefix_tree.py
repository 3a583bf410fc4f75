"""Prefix trees: samples of one prompt with every common prefix held once.

The G completions of a prompt share the prompt and often the beginning of the answer. A tree holds
each shared token once, in depth-first order, so that one rule says which tokens see which: column c
sees column a when a <= c < subtree_end[a]. Positions count from the start of the sample, so every
token is computed exactly as in a row of its own.

Axes: S sequences, T tokens of a sequence, L columns of a tree.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rl.types import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class PrefixTree:
    """Several sequences in one run of columns."""

    token_ids_L: IntArray
    position_ids_L: IntArray  # distance from the start of the sequence
    subtree_end_L: IntArray  # first column that no longer sees this one
    columns_S: tuple[IntArray, ...]  # [T] of each sequence: where its tokens stand, ascending


class Prefixes:
    """Sequences of one prompt in depth-first order, and how much neighbours have in common.

    Without `shares` they keep their order and have nothing in common: the tree is a plain row.

    >>> prefixes = Prefixes([np.array([1, 2, 3]), np.array([9, 9]), np.array([1, 2, 4])])
    >>> prefixes.num_tokens(range(3)), prefixes.order
    (6, (0, 2, 1))
    """

    def __init__(self, sequences: Sequence[IntArray], *, shares: bool = True) -> None:
        self.shares = shares
        if not shares:
            self.order = tuple(range(len(sequences)))
            self._sequences = list(sequences)
            self._common = [0] * len(sequences)
            return
        keys = [np.ascontiguousarray(ids, np.int32).tobytes() for ids in sequences]
        # Any order of the bytes puts sequences with a common beginning side by side.
        self.order = tuple(sorted(range(len(sequences)), key=keys.__getitem__))
        self._sequences = [sequences[index] for index in self.order]
        pairs = zip(self._sequences[:-1], self._sequences[1:], strict=True)
        self._common = [0, *(num_common(one, other) for one, other in pairs)]

    def num_tokens(self, ranks: Sequence[int]) -> int:
        """Columns of the tree over the sequences at `ranks` of the order, which ascend."""
        neighbours = zip([(), *((rank,) for rank in ranks)], ranks, strict=False)
        return sum(self.num_added(before, rank) for before, rank in neighbours)

    def num_added(self, ranks: Sequence[int], rank: int) -> int:
        """Columns by which the tree over `ranks`, ascending, grows with the sequence at `rank`."""
        at = bisect(ranks, rank)
        shared = max(
            self.num_shared(ranks[at - 1], rank) if at else 0,
            self.num_shared(rank, ranks[at]) if at < len(ranks) else 0,
        )
        return self._sequences[rank].size - shared

    def num_shared(self, first: int, second: int) -> int:
        """Tokens that the sequences at two ranks, first < second, begin with."""
        return min(self._common[first + 1 : second + 1])

    def tree(self, ranks: Sequence[int]) -> PrefixTree:
        """The tree over the sequences at `ranks`, which ascend."""
        if len(ranks) == 1:
            return _path(self._sequences[ranks[0]])
        tokens: list[IntArray] = []
        columns_S: list[IntArray] = []
        subtree_end_L = np.zeros(self.num_tokens(ranks), np.int32)
        width = 0
        path_T = np.zeros(0, np.int32)  # columns of the sequence before
        for before, rank in zip([None, *ranks[:-1]], ranks, strict=True):
            shared = 0 if before is None else self.num_shared(before, rank)
            subtree_end_L[path_T[shared:]] = width  # the branch at hand ends
            own = self._sequences[rank][shared:]
            new = np.arange(width, width + own.size, dtype=np.int32)
            path_T = np.concatenate([path_T[:shared], new])
            columns_S.append(path_T)
            tokens.append(own)
            width += own.size
        subtree_end_L[path_T] = width
        position_ids_L = np.zeros(width, np.int32)
        for path_T in columns_S:
            position_ids_L[path_T] = np.arange(path_T.size)
        token_ids_L = np.concatenate(tokens).astype(np.int32)
        return PrefixTree(token_ids_L, position_ids_L, subtree_end_L, tuple(columns_S))

    def parts(self, atoms: Sequence[Sequence[int]], most: int) -> Iterator[tuple[int, ...]]:
        """Ranks of as few trees of at most `most` tokens as it takes, atoms in their order.

        The ranks of an atom ascend and stay in one tree, however large.
        """
        part: list[int] = []
        size = 0
        for atom in atoms:
            grown, added = list(part), 0
            for rank in atom:
                added += self.num_added(grown, rank)
                grown.insert(bisect(grown, rank), rank)
            if part and size + added > most:
                yield tuple(part)
                grown, added, size = sorted(atom), self.num_tokens(sorted(atom)), 0
            part, size = grown, size + added
        yield tuple(part)


def _path(token_ids_T: IntArray) -> PrefixTree:
    """The tree of one sequence."""
    columns_T = np.arange(token_ids_T.size, dtype=np.int32)
    end_L = np.full(token_ids_T.size, token_ids_T.size, np.int32)
    return PrefixTree(token_ids_T.astype(np.int32, copy=False), columns_T, end_L, (columns_T,))


def num_common(one: IntArray, other: IntArray) -> int:
    """Tokens that two sequences begin with.

    >>> num_common(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
    2
    """
    bound = min(one.size, other.size)
    different = np.flatnonzero(one[:bound] != other[:bound])
    return int(different[0]) if different.size else bound
