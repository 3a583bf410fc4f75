"""The ZeRO-3 partitions of a checkpoint, dealt to another number of ranks.

DeepSpeed keeps flat vectors: a rank has one for each of its groups of parameters, with its part of
one parameter behind that of another. Parts are equal shares of a parameter, the last one filled up.
All numbers of a training are in such vectors, master weights and moments of Adam, so that moving
their pieces is exact. The files are mapped: of each, a rank reads what becomes its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conf.errors import UserError

Shapes = Sequence[Mapping[str, torch.Size]]  # of the parameters, by group, in order
Vectors = Sequence[Tensor]  # of one rank, by group

_WEIGHTS = "fp32_flat_groups"
_OPTIMIZER = "optimizer_state_dict"
_RANK = re.compile(r"zero_pp_rank_(\d+)_")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a rank has its part of a parameter."""

    group: int
    start: int
    size: int


class Partition:
    """The parameters of a model as a number of ranks hold them."""

    def __init__(self, shapes: Shapes, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        self.places: dict[str, _Place] = {}
        self.num_elements: dict[str, int] = {}  # of the whole parameters
        self.sizes: list[int] = []  # of the vectors of one rank
        for group, parameters in enumerate(shapes):
            start = 0
            for name, shape in parameters.items():
                self.num_elements[name] = math.prod(shape)
                size = -(-self.num_elements[name] // num_ranks)
                self.places[name] = _Place(group, start, size)
                start += size
            self.sizes.append(start)

    def deal(self, vectors_by_rank: Sequence[Vectors], to: Partition, rank: int) -> list[Tensor]:
        """The vectors of a rank of another partition, from those of all ranks of this one."""
        dealt = [torch.zeros(size, dtype=vectors_by_rank[0][0].dtype) for size in to.sizes]
        for name, place in to.places.items():
            first = rank * place.size
            last = min(first + place.size, self.num_elements[name])
            target = dealt[place.group][place.start : place.start + place.size]
            for begin, piece in self._pieces(vectors_by_rank, name, first, last):
                target[begin - first : begin - first + len(piece)] = piece
        return dealt

    def _pieces(
        self, vectors_by_rank: Sequence[Vectors], name: str, first: int, last: int
    ) -> Iterator[tuple[int, Tensor]]:
        """What ranks have of the elements [first, last) of a parameter, each with its first."""
        place = self.places[name]
        begin = first
        while begin < last:
            rank, offset = divmod(begin, place.size)
            num = min(place.size - offset, last - begin)
            start = place.start + offset
            yield begin, vectors_by_rank[rank][place.group][start : start + num]
            begin += num


def dealt_state(directory: Path, shapes: Shapes, rank: int, num_ranks: int) -> dict[str, Any]:
    """The state of a ZeRO-3 optimizer on one of `num_ranks`, from the files of other ranks.

    `shapes` are those of the model that is trained, by the groups of its optimizer.

    Raises:
        UserError: when the files are not those of such a model.
    """
    states = [_read(path)[_OPTIMIZER] for path in _files(directory, "optim_states")]
    saved_shapes: Shapes = _read(_files(directory, "model_states")[0])["param_shapes"]
    saved, now = Partition(saved_shapes, len(states)), Partition(shapes, num_ranks)
    if saved.num_elements != now.num_elements:
        changed = sorted(set(saved.num_elements.items()) ^ set(now.num_elements.items()))
        raise UserError(
            f"{directory}: written by the training of another model; "
            f"{changed[0][0]} is not the same parameter"
        )

    def deal(vectors_by_rank: Sequence[Vectors]) -> list[Tensor]:
        return saved.deal(vectors_by_rank, now, rank)

    optimizers = [state[_OPTIMIZER] for state in states]
    return {
        **states[0],
        "partition_count": num_ranks,
        _WEIGHTS: deal([state[_WEIGHTS] for state in states]),
        _OPTIMIZER: {
            "state": _deal_moments([each["state"] for each in optimizers], len(shapes), deal),
            "param_groups": [
                {**group, "params": list(range(len(shapes)))}
                for group in optimizers[0]["param_groups"]
            ],
        },
    }


def _deal_moments(
    moments_by_rank: Sequence[Mapping[int, Mapping[str, Any]]],
    num_groups: int,
    deal: Callable[[Sequence[Vectors]], list[Tensor]],
) -> dict[int, dict[str, Any]]:
    """What an optimizer knows of each of its vectors; empty before its first step.

    What is no vector, such as the number of its steps, is the same for all.
    """
    first = moments_by_rank[0]
    if not first:
        return {}
    dealt: list[dict[str, Any]] = [{} for _ in range(num_groups)]
    for name, value in first[0].items():
        if isinstance(value, Tensor) and value.dim():
            of_ranks = [[of[group][name] for group in sorted(of)] for of in moments_by_rank]
            values: Sequence[Any] = deal(of_ranks)
        else:
            values = [deepcopy(value) for _ in range(num_groups)]
        for group, of_group in zip(dealt, values, strict=True):
            group[name] = of_group
    return dict(enumerate(dealt))


def _files(directory: Path, what: str) -> list[Path]:
    """A file of each rank, in their order."""
    named = [(_RANK.search(path.name), path) for path in directory.glob(f"*_{what}.pt")]
    found = {int(match[1]): path for match, path in named if match}
    if not found or sorted(found) != list(range(len(found))):
        raise UserError(
            f"{directory}: not a training checkpoint; "
            f"its *_{what}.pt are of the ranks {sorted(found)}"
        )
    return [found[rank] for rank in sorted(found)]


def _read(path: Path) -> dict[str, Any]:
    """A pickle of DeepSpeed; the manifest has shown that it is ours."""
    return torch.load(path, map_location="cpu", mmap=True, weights_only=False)
