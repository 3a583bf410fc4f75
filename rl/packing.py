"""Samples -> token-budgeted microbatches, balanced over the data-parallel ranks.

Axes: N samples, R rows, L tokens of a row, M labels. Packing never changes the loss: samples of a
row see only themselves (`rl.prefix_tree`), and every denominator is that of the whole minibatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from conf.errors import UserError
from conf.schema import SharePrefix
from rl.parcels import IDLE, Minibatch, Parcel, Readout
from rl.prefix_tree import Prefixes
from rl.types import Sample

_WORTH_SHARING = 0.1  # of the tokens; a dense attention mask has a price

_Row = tuple["_Unit", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How the samples of an optimizer step become microbatches."""

    num_ranks: int
    microbatch_tokens: int  # most tokens of a microbatch, padding included
    row_tokens: int = 0  # tokens of a row; 0: of a whole microbatch
    share_prefix: SharePrefix = "off"  # auto: where it saves a tenth of the tokens
    # Attention also computes what its mask hides, so that a long row has its price; a block mask
    # leaves it out.
    dense_mask: bool = True
    packs: bool = True  # samples may stand in one row

    def checked(self, *, packs: bool, shares: bool) -> Packing:
        """What a self-check found to change no number."""
        return replace(self, packs=packs, share_prefix=self.share_prefix if shares else "off")

    def unchecked(self) -> Packing:
        """Share nothing by `auto`: without a self-check nobody knows that it changes no number."""
        return replace(self, share_prefix="off") if self.share_prefix == "auto" else self


@dataclass(frozen=True, slots=True)
class _Group:
    """Samples that may share a tree; those of an atom stay together."""

    prefixes: Prefixes
    index_S: tuple[int, ...]  # of the samples in the minibatch, in the order of `prefixes`
    atoms: tuple[tuple[int, ...], ...]  # ranks in that order
    num_tokens: int  # of the tree over all of them
    longest: int  # tokens of its largest atom

    def units(self, most: int) -> list[_Unit]:
        """Trees of at most `most` tokens, or of one atom."""
        if self.num_tokens <= most:
            return [_Unit(self, tuple(range(len(self.index_S))), self.num_tokens)]
        return [
            _Unit(self, ranks, self.prefixes.num_tokens(ranks))
            for ranks in self.prefixes.parts(self.atoms, most)
        ]


@dataclass(frozen=True, slots=True)
class _Unit:
    """A tree of samples, which stays in one row."""

    group: _Group
    ranks: tuple[int, ...]
    num_tokens: int

    @property
    def first(self) -> int:
        """Smallest index of its samples: what breaks ties."""
        return min(self.group.index_S[rank] for rank in self.ranks)


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


def build_minibatch(
    samples: Sequence[Sample],
    packing: Packing,
    *,
    group_of: int = 1,
    readout: Readout = "completion",
) -> Minibatch:
    """Pack the samples of one optimizer step; the same arguments give the same minibatch.

    Samples fill rows of `packing.row_tokens` first-fit-decreasing, rows fill microbatches of at
    most `packing.microbatch_tokens`. `group_of` consecutive samples share a row (2: preference
    pairs). Every rank gets the same number of microbatches, because ZeRO-3 ranks gather parameters
    in lockstep; what is missing is filled up with microbatches without a label. Within these
    bounds microbatches are as even as they can be.

    `readout` says where the loss reads: "completion" at the positions that predict completion
    tokens, "last" at the last token itself, where a reward model's score stands. "last_and_lm"
    reads there too, and at what predicts the tokens after the prompt, for the samples that have
    one; these are its loss tokens.

    With `packing.share_prefix` the samples of a prompt become prefix trees, as few as the budget
    allows; no tree is so large that attention with a dense mask costs more than it saves.

    Without `packing.packs` every sample has a row of its own, from position 0, and shares nothing:
    for models whose layers carry state from one sample of a row to the next. A group then shares a
    microbatch.

    Raises UserError for a sample longer than `packing.microbatch_tokens`, ValueError for samples
    that contradict themselves or do not make whole groups.
    """
    if not samples or len(samples) % group_of:
        raise ValueError(
            f"a minibatch needs a positive multiple of {group_of} samples, got {len(samples)}"
        )
    for sample in samples:
        _check(sample, readout)
    if len({sample.support_TK is None for sample in samples}) > 1:
        raise ValueError("samples with and without recorded tokens do not share a minibatch")
    num_sample_tokens = sum(sample.token_ids.size for sample in samples)
    groups = _groups(samples, group_of, packing, num_sample_tokens)
    lay_out = _balanced_layout if packing.packs else _layout_alone
    layout = lay_out(groups, packing)
    # The ranks wait for each other after every microbatch, so each round holds similar ones.
    layout.sort(key=_num_padded_tokens, reverse=True)
    parcels = [_parcel(rows, samples, readout) for rows in layout]
    while len(parcels) % packing.num_ranks:
        parcels.append(IDLE)
    return Minibatch(
        parcels_by_rank=tuple(
            tuple(parcels[rank :: packing.num_ranks]) for rank in range(packing.num_ranks)
        ),
        num_samples=len(samples),
        num_loss_tokens=_num_loss_tokens(samples, readout),
        num_sample_tokens=num_sample_tokens,
        num_tokens=sum(_length(row) for rows in layout for row in rows),
    )


def shares(packing: Packing, share: float) -> bool:
    """Whether trees that leave out this share of the tokens are made."""
    if packing.share_prefix == "off" or not packing.packs:
        return False
    return packing.share_prefix == "on" or share >= _WORTH_SHARING


def shared_frac(samples: Sequence[Sample], group_of: int) -> float:
    """Share of the tokens that trees over `group_of` consecutive samples each leave out."""
    total = sum(sample.token_ids.size for sample in samples)
    held = sum(
        _group(samples, range(first, first + group_of), group_of, shares=True).num_tokens
        for first in range(0, len(samples), group_of)
    )
    return 1.0 - held / max(1, total)


def _groups(
    samples: Sequence[Sample], group_of: int, packing: Packing, num_sample_tokens: int
) -> list[_Group]:
    """The samples of each prompt where prefixes are shared, else those of each atom."""
    apart = [
        _group(samples, range(first, first + group_of), group_of, shares=False)
        for first in range(0, len(samples), group_of)
    ]
    for group in apart:
        if group.num_tokens > packing.microbatch_tokens:
            what = "sample" if group_of == 1 else f"group of {group_of} samples"
            raise UserError(
                f"the {what} of prompt {samples[group.index_S[0]].prompt_id!r} has "
                f"{group.num_tokens} tokens, more than "
                f"policy.microbatch_tokens={packing.microbatch_tokens}; raise "
                "policy.microbatch_tokens or shorten prompts and completions"
            )
    if not shares(packing, 1.0):
        return apart
    by_prompt: dict[str, list[int]] = {}
    for group in apart:
        by_prompt.setdefault(samples[group.index_S[0]].prompt_id, []).extend(group.index_S)
    groups = [_group(samples, indices, group_of, shares=True) for indices in by_prompt.values()]
    num_tokens = sum(unit.num_tokens for unit in _units(groups, packing.microbatch_tokens, packing))
    return groups if shares(packing, 1 - num_tokens / num_sample_tokens) else apart


def _group(
    samples: Sequence[Sample], indices: Sequence[int], group_of: int, *, shares: bool
) -> _Group:
    prefixes = Prefixes([samples[index].token_ids for index in indices], shares=shares)
    atom_of = [member // group_of for member in prefixes.order]
    by_atom: dict[int, list[int]] = {}
    for rank, atom in enumerate(atom_of):
        by_atom.setdefault(atom, []).append(rank)
    return _Group(
        prefixes,
        tuple(indices[member] for member in prefixes.order),
        tuple(tuple(ranks) for ranks in by_atom.values()),
        prefixes.num_tokens(range(len(indices))),
        max(prefixes.num_tokens(ranks) for ranks in by_atom.values()),
    )


def _units(groups: Iterable[_Group], budget: int, packing: Packing) -> list[_Unit]:
    """Trees within the budget; with a dense mask of twice the longest sample, or of a row."""
    units: list[_Unit] = []
    for group in groups:
        most = budget
        if packing.dense_mask:
            most = min(budget, max(packing.row_tokens, 2 * group.longest))
        units += group.units(most)
    return units


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
    if sample.loss_mask is not None and sample.loss_mask.size != num_completion:
        raise ValueError(
            f"{name} has {num_completion} completion tokens, "
            f"but a loss_mask of {sample.loss_mask.size}"
        )


def _balanced_layout(groups: Sequence[_Group], packing: Packing) -> list[tuple[_Row, ...]]:
    """Microbatches of rows: as few rounds as the budget allows, then as even as possible.

    The budget is lowered, by bisection to about a percent, as long as the number of rounds stays:
    an evenly filled round beats a full one that is followed by a half-empty one.
    """
    layout = _layout(groups, packing.microbatch_tokens, packing)
    num_allowed = -(-len(layout) // packing.num_ranks) * packing.num_ranks
    low = max(group.longest for group in groups)
    high = packing.microbatch_tokens
    while high - low > high // 128:
        budget = (low + high) // 2
        candidate = _layout(groups, budget, packing)
        if len(candidate) <= num_allowed:
            layout, high = candidate, budget
        else:
            low = budget + 1
    return layout


def _layout(groups: Sequence[_Group], budget: int, packing: Packing) -> list[tuple[_Row, ...]]:
    """Fill rows first-fit-decreasing, then microbatches with rows of similar length."""
    capacity = min(packing.row_tokens or budget, budget)
    rows: list[list[_Unit]] = []
    room: list[int] = []
    units = _units(groups, budget, packing)
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


def _layout_alone(groups: Sequence[_Group], packing: Packing) -> list[tuple[_Row, ...]]:
    """Microbatches of rows with one sample each; those of an atom stay in one microbatch."""
    alone = [_alone(group) for group in groups]
    sizes = [_num_padded_tokens(rows) for rows in alone]
    budget = max(packing.microbatch_tokens, *sizes)
    order = sorted(alone, key=lambda rows: (-max(map(_length, rows)), rows[0][0].first))
    num_total = sum(sizes)
    # As even as the rounds allow: each is shared by all ranks.
    rounds = -(-num_total // (budget * packing.num_ranks))
    target = min(budget, -(-num_total // (rounds * packing.num_ranks)))
    layout: list[list[_Row]] = []
    for rows in order:
        if layout and _num_padded_tokens((*layout[-1], *rows)) <= target:
            layout[-1] += rows
        else:
            layout.append(list(rows))
    return [tuple(microbatch) for microbatch in layout]


def _alone(group: _Group) -> tuple[_Row, ...]:
    """A row for each sample of a group."""
    ranks = range(len(group.index_S))
    return tuple((_Unit(group, (rank,), group.prefixes.num_tokens((rank,))),) for rank in ranks)


def _length(row: _Row) -> int:
    return sum(unit.num_tokens for unit in row)


def _num_padded_tokens(rows: Sequence[_Row]) -> int:
    return len(rows) * max(_length(row) for row in rows)


def _num_loss_tokens(samples: Sequence[Sample], readout: Readout) -> int:
    if readout == "last":
        return len(samples)
    return sum(
        sample.token_ids.size - sample.num_prompt_tokens
        if sample.loss_mask is None
        else int(sample.loss_mask.sum())
        for sample in samples
        if readout == "completion" or sample.num_prompt_tokens
    )


def _parcel(rows: Sequence[_Row], samples: Sequence[Sample], readout: Readout) -> Parcel:
    """What a rank makes the microbatch of these rows of."""
    units = [unit for row in rows for unit in row]
    index_S = tuple(unit.group.index_S[rank] for unit in units for rank in unit.ranks)
    return Parcel(
        samples_S=tuple(samples[index] for index in index_S),
        index_S=index_S,
        sizes_RU=tuple(tuple(len(unit.ranks) for unit in row) for row in rows),
        shares=any(unit.group.prefixes.shares for unit in units),
        readout=readout,
    )
