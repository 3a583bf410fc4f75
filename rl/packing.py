"""Samples -> token-budgeted microbatches, balanced over the data-parallel ranks.

Axes: N samples, R rows, L tokens of a row. Packing never changes the loss: samples of a row are
isolated by their position ids, and every denominator is that of the whole minibatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from conf.errors import UserError
from rl.types import FloatArray, Microbatch, Minibatch, Sample

_IDLE_TOKENS = 16  # of the microbatch that only keeps a rank in step; any small size will do

Readout = Literal["completion", "last", "last_and_lm"]
_Row = tuple["_Unit", ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """Consecutive samples that stay in one row."""

    first: int  # index of the first sample in the minibatch
    samples: tuple[Sample, ...]
    shared: tuple[int, ...]  # of each sample: leading tokens that the first one holds for it
    num_tokens: int


def split_minibatches(samples: Sequence[Sample], num: int) -> list[list[Sample]]:
    """Split the samples of a step into at most `num` minibatches; prompts stay whole.

    Prompts keep their order and are dealt as evenly as their count allows. With fewer prompts than
    `num` there are fewer minibatches: none is empty.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    by_prompt: dict[str, list[Sample]] = {}
    for sample in samples:
        by_prompt.setdefault(sample.prompt_id, []).append(sample)
    groups = list(by_prompt.values())
    num = min(num, len(groups))
    bounds = [k * len(groups) // num for k in range(num + 1)] if groups else [0]
    return [
        [sample for group in groups[start:end] for sample in group]
        for start, end in pairwise(bounds)
    ]


def build_minibatch(  # noqa: PLR0913 - six independent facts, all of them of this one call
    samples: Sequence[Sample],
    num_ranks: int,
    microbatch_tokens: int,
    row_tokens: int,
    *,
    group_of: int = 1,
    readout: Readout = "completion",
    share_prefix: bool = False,
    packs: bool = True,
) -> Minibatch:
    """Pack the samples of one optimizer step; the same arguments give the same minibatch.

    Samples fill rows of `row_tokens` (0: of a whole microbatch) first-fit-decreasing, rows fill
    microbatches of at most `microbatch_tokens` tokens, padding included. `group_of` consecutive
    samples share a row (2: preference pairs). Every rank gets the same number of microbatches,
    because ZeRO-3 ranks gather parameters in lockstep; what is missing is filled up with
    microbatches that are masked out. Within these bounds microbatches are as even as they can be.

    `readout` says where the loss reads: "completion" at the positions that predict completion
    tokens, "last" at the last token itself, where a reward model's score stands (it predicts
    nothing, so its target is 0). "last_and_lm" reads there too, and sets `lm_mask` on what predicts
    the tokens after the prompt, for the samples that have one; these are its loss tokens.

    With `share_prefix` a sample of a group leaves out the tokens that it has in common with the
    first one; its position ids go on after them, and `rl.loss.attention_mask` lets it see them.

    Without `packs` every sample has a row of its own, from position 0, and shares nothing: for
    models whose layers carry state from one sample of a row to the next. A group then shares a
    microbatch.

    Raises UserError for a sample longer than `microbatch_tokens`, ValueError for samples that
    contradict themselves or do not make whole groups.
    """
    units = _units(samples, group_of, readout, share_prefix=share_prefix and packs)
    for unit in units:
        if unit.num_tokens > microbatch_tokens:
            what = "sample" if group_of == 1 else f"group of {group_of} samples"
            raise UserError(
                f"the {what} of prompt {unit.samples[0].prompt_id!r} has {unit.num_tokens} tokens, "
                f"more than policy.microbatch_tokens={microbatch_tokens}; raise "
                "policy.microbatch_tokens or shorten prompts and completions"
            )
    if packs:
        layout = _balanced_layout(units, num_ranks, microbatch_tokens, row_tokens)
    else:
        layout = _layout_alone(units, num_ranks, microbatch_tokens)
    # The ranks wait for each other after every microbatch, so each round holds similar ones.
    layout.sort(key=_num_padded_tokens, reverse=True)
    microbatches = [_fill(rows, readout) for rows in layout]
    while len(microbatches) % num_ranks:
        microbatches.append(_empty(1, _IDLE_TOKENS))
    return Minibatch(
        microbatches_by_rank=tuple(
            tuple(microbatches[rank::num_ranks]) for rank in range(num_ranks)
        ),
        num_samples=len(samples),
        num_loss_tokens=_num_loss_tokens(samples, readout),
    )


def _units(
    samples: Sequence[Sample], group_of: int, readout: Readout, *, share_prefix: bool
) -> list[_Unit]:
    if not samples or len(samples) % group_of:
        raise ValueError(
            f"a minibatch needs a positive multiple of {group_of} samples, got {len(samples)}"
        )
    for sample in samples:
        _check(sample, readout)
    return [
        _unit(first, tuple(samples[first : first + group_of]), share_prefix=share_prefix)
        for first in range(0, len(samples), group_of)
    ]


def _unit(first: int, samples: tuple[Sample, ...], *, share_prefix: bool) -> _Unit:
    shared = tuple(
        num_shared_tokens(samples[0], sample) if share_prefix and index else 0
        for index, sample in enumerate(samples)
    )
    num_tokens = sum(sample.token_ids.size for sample in samples) - sum(shared)
    return _Unit(first, samples, shared, num_tokens)


def num_shared_tokens(one: Sample, other: Sample) -> int:
    """Tokens at the start of `other` that a row need not hold again after `one`.

    Each sample keeps a token of its own: its score is read at the last one.
    """
    bound = min(one.token_ids.size, other.token_ids.size) - 1
    different = np.flatnonzero(one.token_ids[:bound] != other.token_ids[:bound])
    return int(different[0]) if different.size else max(0, bound)


def _check(sample: Sample, readout: Readout) -> None:
    num_tokens = sample.token_ids.size
    name = f"sample {sample.sample_idx} of prompt {sample.prompt_id!r}"
    if num_tokens == 0:
        raise ValueError(f"{name} has no tokens")
    if readout != "completion":
        return
    if not 1 <= sample.num_prompt_tokens < num_tokens:
        raise ValueError(
            f"{name} needs at least one prompt and one completion token; it has {num_tokens} "
            f"tokens, {sample.num_prompt_tokens} of them prompt"
        )
    num_completion = num_tokens - sample.num_prompt_tokens
    if sample.rollout_logprobs.size != num_completion:
        raise ValueError(
            f"{name} has {num_completion} completion tokens, "
            f"but {sample.rollout_logprobs.size} rollout_logprobs"
        )


def _balanced_layout(
    units: Sequence[_Unit], num_ranks: int, microbatch_tokens: int, row_tokens: int
) -> list[tuple[_Row, ...]]:
    """Microbatches of rows: as few rounds as the budget allows, then as even as possible.

    The budget is lowered, by bisection to about a percent, as long as the number of rounds stays:
    an evenly filled round beats a full one that is followed by a half-empty one.
    """
    layout = _layout(units, microbatch_tokens, row_tokens)
    num_allowed = -(-len(layout) // num_ranks) * num_ranks
    low, high = max(unit.num_tokens for unit in units), microbatch_tokens
    while high - low > high // 128:
        budget = (low + high) // 2
        candidate = _layout(units, budget, row_tokens)
        if len(candidate) <= num_allowed:
            layout, high = candidate, budget
        else:
            low = budget + 1
    return layout


def _layout(units: Sequence[_Unit], budget: int, row_tokens: int) -> list[tuple[_Row, ...]]:
    """Fill rows first-fit-decreasing, then microbatches with rows of similar length."""
    capacity = min(row_tokens or budget, budget)
    rows: list[list[_Unit]] = []
    room: list[int] = []
    for unit in sorted(units, key=lambda unit: (-unit.num_tokens, unit.first)):
        fitting = next((idx for idx, free in enumerate(room) if free >= unit.num_tokens), None)
        if fitting is None:
            rows.append([unit])
            room.append(capacity - unit.num_tokens)  # below 0 for a row of its own
        else:
            rows[fitting].append(unit)
            room[fitting] -= unit.num_tokens
    layout: list[list[_Row]] = []
    for row in sorted((tuple(row) for row in rows), key=_length, reverse=True):
        if layout and (len(layout[-1]) + 1) * _length(layout[-1][0]) <= budget:
            layout[-1].append(row)
        else:
            layout.append([row])
    return [tuple(microbatch) for microbatch in layout]


def _layout_alone(
    units: Sequence[_Unit], num_ranks: int, microbatch_tokens: int
) -> list[tuple[_Row, ...]]:
    """Microbatches of rows with one sample each; those of a unit stay in one microbatch."""
    sizes = [_num_padded_tokens(_alone(unit)) for unit in units]
    budget = max(microbatch_tokens, *sizes)
    order = sorted(
        units, key=lambda unit: (-max(s.token_ids.size for s in unit.samples), unit.first)
    )
    num_total = sum(sizes)
    # As even as the rounds allow: each is shared by all ranks.
    rounds = -(-num_total // (budget * num_ranks))
    target = min(budget, -(-num_total // (rounds * num_ranks)))
    layout: list[list[_Row]] = []
    for unit in order:
        rows = _alone(unit)
        if layout and _num_padded_tokens((*layout[-1], *rows)) <= target:
            layout[-1] += rows
        else:
            layout.append(list(rows))
    return [tuple(microbatch) for microbatch in layout]


def _alone(unit: _Unit) -> tuple[_Row, ...]:
    """A row for each sample of a unit."""
    return tuple(
        (_Unit(unit.first + index, (sample,), (0,), sample.token_ids.size),)
        for index, sample in enumerate(unit.samples)
    )


def _length(row: _Row) -> int:
    return sum(unit.num_tokens for unit in row)


def _num_padded_tokens(rows: Sequence[_Row]) -> int:
    return len(rows) * max(_length(row) for row in rows)


def _num_loss_tokens(samples: Sequence[Sample], readout: Readout) -> int:
    if readout == "last":
        return len(samples)
    return sum(
        sample.token_ids.size - sample.num_prompt_tokens
        for sample in samples
        if readout == "completion" or sample.num_prompt_tokens
    )


def _fill(rows: Sequence[_Row], readout: Readout) -> Microbatch:
    microbatch = _empty(len(rows), max(_length(row) for row in rows))
    for row_idx, row in enumerate(rows):
        offset = 0
        for unit in row:
            members = zip(unit.samples, unit.shared, strict=True)
            for idx, (sample, shared) in enumerate(members, start=unit.first):
                _place(microbatch, (row_idx, offset - shared), idx, sample, shared, readout)
                offset += sample.token_ids.size - shared
    return microbatch


def unpack(
    microbatches: Iterable[Microbatch], outputs: Iterable[FloatArray]
) -> dict[int, FloatArray]:
    """Outputs [R, L] of microbatches where the loss reads them: [T] by the sample's index."""
    found: dict[int, FloatArray] = {}
    for mb, values_RL in zip(microbatches, outputs, strict=True):
        for index in set(mb.sample_index_RL.ravel().tolist()) - {-1}:
            found[index] = values_RL[(mb.sample_index_RL == index) & (mb.loss_mask_RL > 0)]
    return found


def _place(  # noqa: PLR0913, PLR0917 - where, what and how
    mb: Microbatch,
    start: tuple[int, int],
    index: int,
    sample: Sample,
    shared: int,
    readout: Readout,
) -> None:
    """Write one sample into the arrays of a microbatch.

    Its token 0 would stand at (row, column) `start`; the first `shared` of its tokens are left out.
    """
    row, offset = start
    num_tokens, num_prompt = sample.token_ids.size, sample.num_prompt_tokens
    held = slice(offset + shared, offset + num_tokens)
    mb.token_ids_RL[row, held] = sample.token_ids[shared:]
    mb.position_ids_RL[row, held] = np.arange(shared, num_tokens)
    mb.sample_index_RL[row, held] = index
    last = offset + num_tokens - 1
    predicting = slice(offset + num_prompt - 1, last)  # the tokens after the prompt
    if readout != "completion":
        mb.loss_mask_RL[row, last] = 1.0
        mb.sequence_weight_RL[row, last] = 1.0
        mb.advantages_RL[row, last] = sample.advantage
        if readout == "last_and_lm" and num_prompt:
            mb.lm_mask_RL[row, predicting] = 1.0
            mb.target_ids_RL[row, predicting] = sample.token_ids[num_prompt:]
        return
    mb.target_ids_RL[row, predicting] = sample.token_ids[num_prompt:]
    mb.rollout_logprobs_RL[row, predicting] = sample.rollout_logprobs
    mb.loss_mask_RL[row, predicting] = 1.0
    mb.advantages_RL[row, predicting] = sample.advantage
    mb.sequence_weight_RL[row, predicting] = 1.0 / (num_tokens - num_prompt)


def _empty(num_rows: int, num_tokens: int) -> Microbatch:
    """Return a microbatch of padding alone.

    All position ids are 0: attention that starts a new sequence wherever they do not increase by
    one then isolates each padding token too.
    """
    shape = (num_rows, num_tokens)
    return Microbatch(
        token_ids_RL=np.zeros(shape, np.int32),
        position_ids_RL=np.zeros(shape, np.int32),
        target_ids_RL=np.zeros(shape, np.int32),
        loss_mask_RL=np.zeros(shape, np.float32),
        lm_mask_RL=np.zeros(shape, np.float32),
        advantages_RL=np.zeros(shape, np.float32),
        rollout_logprobs_RL=np.zeros(shape, np.float32),
        sequence_weight_RL=np.zeros(shape, np.float32),
        sample_index_RL=np.full(shape, -1, np.int32),
    )
