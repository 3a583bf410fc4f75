"""Parcels: what the driver sends of a minibatch, and the microbatches that a rank makes of it.

A parcel holds samples and how they stand in rows, 8 bytes a token; the arrays of its microbatch
would be four times that, and are computed where they are read.

Axes: S samples, T tokens of a sample, R rows, L tokens of a row, U trees of a row, M labels,
K tokens that a token was sampled among.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rl.prefix_tree import Prefixes, PrefixTree
from rl.types import FloatArray, IntArray, Microbatch, Sample

Readout = Literal["completion", "last", "last_and_lm"]

_IDLE_TOKENS = 16  # of the microbatch that only keeps a rank in step; any small size will do


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parcel:
    """A microbatch as it travels; without samples it is of padding alone."""

    samples_S: tuple[Sample, ...]  # tree after tree
    index_S: tuple[int, ...]  # of each in the minibatch
    sizes_RU: tuple[tuple[int, ...], ...]  # samples of each tree
    shares: bool  # a tree holds common prefixes once
    readout: Readout

    def microbatch(self) -> Microbatch:
        """The arrays of the microbatch."""
        if not self.samples_S:
            return _idle()
        ids_S = [sample.token_ids for sample in self.samples_S]
        trees_RU: list[list[PrefixTree]] = []
        first = 0
        for sizes_U in self.sizes_RU:
            trees_RU.append([])
            for size in sizes_U:
                prefixes = Prefixes(ids_S[first : first + size], shares=self.shares)
                trees_RU[-1].append(prefixes.tree(range(size)))
                first += size
        return self._filled(trees_RU)

    def _filled(self, trees_RU: Sequence[Sequence[PrefixTree]]) -> Microbatch:
        length = max(sum(tree.token_ids_L.size for tree in trees_U) for trees_U in trees_RU)
        shape = (len(trees_RU), length)
        token_ids_RL = np.zeros(shape, np.int32)
        # Padding has position 0 throughout: attention that starts a new sequence wherever positions
        # do not increase by one then isolates each padding token too.
        position_ids_RL = np.zeros(shape, np.int32)
        subtree_end_RL = np.tile(np.arange(1, length + 1, dtype=np.int32), (shape[0], 1))
        labels: list[Label] = []
        has_tree = False
        read = zip(self.index_S, self.samples_S, strict=True)
        for row_idx, trees_U in enumerate(trees_RU):
            offset = 0
            for tree in trees_U:
                num_tokens = tree.token_ids_L.size
                held = (row_idx, slice(offset, offset + num_tokens))
                token_ids_RL[held] = tree.token_ids_L
                position_ids_RL[held] = tree.position_ids_L
                subtree_end_RL[held] = tree.subtree_end_L + offset
                has_tree = has_tree or num_tokens < sum(c.size for c in tree.columns_S)
                for columns_T, (index, sample) in zip(tree.columns_S, read, strict=False):
                    place_T = columns_T + (row_idx * length + offset)
                    labels += labels_of(index, sample, place_T, self.readout)
                offset += num_tokens
        return Microbatch(
            token_ids_RL=token_ids_RL,
            position_ids_RL=position_ids_RL,
            subtree_end_RL=subtree_end_RL if has_tree else None,
            **label_arrays(labels),
        )


IDLE = Parcel(samples_S=(), index_S=(), sizes_RU=(), shares=False, readout="completion")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Minibatch:
    """One optimizer step: for each data-parallel rank the same number of microbatches."""

    parcels_by_rank: tuple[tuple[Parcel, ...], ...]
    num_samples: int
    num_loss_tokens: int  # over all ranks: the denominator of the token mean
    num_sample_tokens: int  # of all samples, each counted by itself
    num_tokens: int  # that are computed, padding left out: fewer where prefixes are shared

    @property
    def microbatches_by_rank(self) -> tuple[tuple[Microbatch, ...], ...]:
        """What the ranks make of it."""
        return tuple(tuple(p.microbatch() for p in parcels) for parcels in self.parcels_by_rank)

    @property
    def shared_frac(self) -> float:
        """Share of the samples' tokens that need not be computed, since prefixes are shared."""
        return 1.0 - self.num_tokens / self.num_sample_tokens


def unpack(
    microbatches: Iterable[Microbatch], outputs: Iterable[FloatArray]
) -> dict[int, FloatArray]:
    """Outputs [M] of microbatches by the index of the sample, in the order of its tokens."""
    found: dict[int, FloatArray] = {}
    for mb, values_M in zip(microbatches, outputs, strict=True):
        order = np.argsort(mb.sample_index_M, kind="stable")
        indices, starts = np.unique(mb.sample_index_M[order], return_index=True)
        parts = np.split(values_M[order], starts[1:]) if indices.size else []
        found |= dict(zip(indices.tolist(), parts, strict=True))
    return found


def _idle() -> Microbatch:
    """A microbatch of padding alone."""
    tokens = np.zeros((1, _IDLE_TOKENS), np.int32)
    return Microbatch(
        token_ids_RL=tokens,
        position_ids_RL=tokens,
        subtree_end_RL=None,
        **label_arrays([]),
    )


class Label(NamedTuple):
    """Labels of one kind of one sample."""

    sample_index: int
    place_T: IntArray
    target_ids_T: IntArray
    logprobs_T: FloatArray
    advantage: float
    is_token: bool
    support_TK: IntArray | None = None


def labels_of(index: int, sample: Sample, place_T: IntArray, readout: Readout) -> Iterator[Label]:
    """What the loss reads of a sample whose tokens stand at `place_T`."""
    num_prompt = sample.num_prompt_tokens
    if readout != "last" and num_prompt:
        targets = sample.token_ids[num_prompt:]
        logprobs = sample.rollout_logprobs
        if readout != "completion":  # no engine sampled them
            logprobs = np.zeros(targets.size, np.float32)
        places = place_T[num_prompt - 1 : -1]
        support_TK = sample.support_TK
        if sample.loss_mask is not None:
            read = sample.loss_mask
            places, targets, logprobs = places[read], targets[read], logprobs[read]
            support_TK = None if support_TK is None else support_TK[read]
        yield Label(index, places, targets, logprobs, sample.advantage, True, support_TK)
    if readout != "completion":
        target, logprob = np.zeros(1, np.int32), np.zeros(1, np.float32)
        yield Label(index, place_T[-1:], target, logprob, sample.advantage, is_token=False)


def label_arrays(labels: Sequence[Label]) -> dict[str, Any]:
    """The fields of a microbatch over its labels, in the order of places, then of samples."""
    sizes = [label.place_T.size for label in labels]
    place_M = _joined([label.place_T for label in labels], np.int32)
    sample_index_M = np.repeat(np.array([label.sample_index for label in labels], np.int32), sizes)
    fields = {
        "place_M": place_M,
        "is_token_M": np.repeat(np.array([label.is_token for label in labels], np.bool_), sizes),
        "target_ids_M": _joined([label.target_ids_T for label in labels], np.int32),
        "sample_index_M": sample_index_M,
        "advantages_M": np.repeat(
            np.array([label.advantage for label in labels], np.float32), sizes
        ),
        "rollout_logprobs_M": _joined([label.logprobs_T for label in labels], np.float32),
        "sequence_weight_M": np.repeat(1.0 / np.maximum(np.array(sizes, np.float32), 1), sizes),
    }
    support_MK = _support([label.support_TK for label in labels])
    if not np.any(place_M[1:] <= place_M[:-1]):  # in order already: no place is read twice
        return {**fields, "support_MK": support_MK}
    order = np.lexsort((sample_index_M, place_M))
    return {
        **{name: values[order] for name, values in fields.items()},
        "support_MK": None if support_MK is None else support_MK[order],
    }


def _support(supports: Sequence[IntArray | None]) -> IntArray | None:
    """Supports of all labels, as wide as the widest; None where samples have none.

    All samples of a minibatch have one, or none has (`rl.packing`).
    """
    given = [support_TK for support_TK in supports if support_TK is not None]
    if not given:
        return None
    width = max(support_TK.shape[1] for support_TK in given)
    return np.concatenate(
        [np.pad(s, ((0, 0), (0, width - s.shape[1])), constant_values=-1) for s in given]
    )


def _joined(arrays: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype)
