"""Samples -> token-budgeted microbatches, balanced over the data-parallel ranks.

Axes: N samples, R rows, L tokens of a row. Packing never changes the loss: samples of a row are
isolated by their position ids, and every denominator is that of the whole minibatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from rl.errors import UserError
from rl.types import Microbatch, Minibatch, Sample

_IDLE_TOKENS = 16  # of the microbatch that only keeps a rank in step; any small size will do

_Row = tuple["_Unit", ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """Consecutive samples that stay in one row."""

    first: int  # index of the first sample in the minibatch
    samples: tuple[Sample, ...]
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
    readout: Literal["completion", "last"] = "completion",
) -> Minibatch:
    """Pack the samples of one optimizer step; the same arguments give the same minibatch.

    Samples fill rows of `row_tokens` (0: of a whole microbatch) first-fit-decreasing, rows fill
    microbatches of at most `microbatch_tokens` tokens, padding included. `group_of` consecutive
    samples share a row (2: preference pairs). Every rank gets the same number of microbatches,
    because ZeRO-3 ranks gather parameters in lockstep; what is missing is filled up with
    microbatches that are masked out. Within these bounds microbatches are as even as they can be.

    `readout` says where the loss reads: "completion" at the positions that predict completion
    tokens, "last" at the last token itself, where a reward model's score stands (it predicts
    nothing, so its target is 0).

    Raises UserError for a sample longer than `microbatch_tokens`, ValueError for samples that
    contradict themselves or do not make whole groups.
    """
    units = _units(samples, group_of, readout)
    for unit in units:
        if unit.num_tokens > microbatch_tokens:
            what = "sample" if group_of == 1 else f"group of {group_of} samples"
            raise UserError(
                f"the {what} of prompt {unit.samples[0].prompt_id!r} has {unit.num_tokens} tokens, "
                f"more than policy.microbatch_tokens={microbatch_tokens}; raise "
                "policy.microbatch_tokens or shorten prompts and completions"
            )
    layout = _balanced_layout(units, num_ranks, microbatch_tokens, row_tokens)
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
        num_loss_tokens=sum(_num_read(sample, readout) for sample in samples),
    )


def _units(
    samples: Sequence[Sample], group_of: int, readout: Literal["completion", "last"]
) -> list[_Unit]:
    if not samples or len(samples) % group_of:
        raise ValueError(
            f"a minibatch needs a positive multiple of {group_of} samples, got {len(samples)}"
        )
    for sample in samples:
        _check(sample, readout)
    return [
        _Unit(
            first,
            tuple(samples[first : first + group_of]),
            sum(sample.token_ids.size for sample in samples[first : first + group_of]),
        )
        for first in range(0, len(samples), group_of)
    ]


def _check(sample: Sample, readout: Literal["completion", "last"]) -> None:
    num_tokens = sample.token_ids.size
    name = f"sample {sample.sample_idx} of prompt {sample.prompt_id!r}"
    if num_tokens == 0:
        raise ValueError(f"{name} has no tokens")
    if readout == "last":
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


def _length(row: _Row) -> int:
    return sum(unit.num_tokens for unit in row)


def _num_padded_tokens(rows: Sequence[_Row]) -> int:
    return len(rows) * max(_length(row) for row in rows)


def _num_read(sample: Sample, readout: Literal["completion", "last"]) -> int:
    return 1 if readout == "last" else sample.token_ids.size - sample.num_prompt_tokens


def _fill(rows: Sequence[_Row], readout: Literal["completion", "last"]) -> Microbatch:
    microbatch = _empty(len(rows), max(_length(row) for row in rows))
    for row_idx, row in enumerate(rows):
        offset = 0
        for unit in row:
            for idx, sample in enumerate(unit.samples, start=unit.first):
                _place(microbatch, (row_idx, offset), idx, sample, readout)
                offset += sample.token_ids.size
    return microbatch


def _place(
    mb: Microbatch,
    start: tuple[int, int],
    index: int,
    sample: Sample,
    readout: Literal["completion", "last"],
) -> None:
    """Write one sample into the arrays of a microbatch, from (row, column) `start` on."""
    row, offset = start
    end = offset + sample.token_ids.size
    mb.token_ids_RL[row, offset:end] = sample.token_ids
    mb.position_ids_RL[row, offset:end] = np.arange(sample.token_ids.size)
    mb.sample_index_RL[row, offset:end] = index
    if readout == "last":
        read = slice(end - 1, end)
    else:
        read = slice(offset + sample.num_prompt_tokens - 1, end - 1)
        mb.target_ids_RL[row, read] = sample.token_ids[sample.num_prompt_tokens :]
        mb.rollout_logprobs_RL[row, read] = sample.rollout_logprobs
    mb.loss_mask_RL[row, read] = 1.0
    mb.advantages_RL[row, read] = sample.advantage
    mb.sequence_weight_RL[row, read] = 1.0 / _num_read(sample, readout)


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
        advantages_RL=np.zeros(shape, np.float32),
        rollout_logprobs_RL=np.zeros(shape, np.float32),
        sequence_weight_RL=np.zeros(shape, np.float32),
        sample_index_RL=np.full(shape, -1, np.int32),
    )
