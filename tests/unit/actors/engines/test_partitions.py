"""Pieces of ZeRO-3 vectors that move from some ranks to others."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from actors.engines.stored.partitions import Partition, Shapes, dealt_state
from conf.errors import UserError

pytestmark = pytest.mark.unit

SHAPES: Shapes = (
    {"embed": torch.Size((7, 5)), "norm": torch.Size((3,)), "scalar": torch.Size(())},
    {"wide": torch.Size((2, 3, 4)), "one": torch.Size((1,)), "head": torch.Size((11,))},
)
REGROUPED: Shapes = ({**SHAPES[0], **SHAPES[1]},)
STEPS = 5.0


def whole_parameters(shift: float) -> dict[str, Tensor]:
    """Numbers that tell where they belong."""
    counter = itertools.count()
    return {
        name: torch.tensor([next(counter) + shift for _ in range(shape.numel())])
        for group in SHAPES
        for name, shape in group.items()
    }


def as_zero3(values: Mapping[str, Tensor], shapes: Shapes, num_ranks: int) -> list[list[Tensor]]:
    """How ZeRO-3 lays parameters out, by rank and group; what fills a last part up is no number."""
    by_rank: list[list[Tensor]] = [[] for _ in range(num_ranks)]
    for group in shapes:
        parts: list[list[Tensor]] = [[] for _ in range(num_ranks)]
        for name in group:
            value = values[name]
            size = -(-len(value) // num_ranks)
            padding = torch.full((size * num_ranks - len(value),), torch.nan)
            for rank, part in enumerate(torch.cat([value, padding]).split(size)):
                parts[rank].append(part)
        for rank, of_rank in enumerate(parts):
            by_rank[rank].append(torch.cat(of_rank))
    return by_rank


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Equal but for what fills a part up, which is 0 where it is dealt."""
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs.nan_to_num(0.0))


@pytest.mark.parametrize(("before", "now"), [(2, 1), (1, 4), (2, 4), (4, 3), (3, 40), (40, 2)])
@pytest.mark.parametrize("shapes", [SHAPES, REGROUPED])
def test_every_rank_gets_the_numbers_that_zero3_would_give_it(
    before: int, now: int, shapes: Shapes
) -> None:
    values = whole_parameters(1.0)
    saved, wanted = Partition(SHAPES, before), Partition(shapes, now)
    for rank, expected in enumerate(as_zero3(values, shapes, now)):
        assert_same(saved.deal(as_zero3(values, SHAPES, before), wanted, rank), expected)


def write_checkpoint(directory: Path, num_ranks: int, *, stepped: bool = True) -> None:
    weights, first, second = (
        as_zero3(whole_parameters(shift), SHAPES, num_ranks) for shift in (1.0, 0.25, 0.5)
    )
    for rank in range(num_ranks):
        moments = {
            group: {"step": torch.tensor(STEPS), "exp_avg": mean, "exp_avg_sq": square}
            for group, (mean, square) in enumerate(zip(first[rank], second[rank], strict=True))
        }
        optimizer = {
            "state": moments if stepped else {},
            "param_groups": [{"lr": 1e-3, "params": [0, 1]}],
        }
        state = {
            "zero_stage": 3,
            "partition_count": num_ranks,
            "fp32_flat_groups": weights[rank],
            "optimizer_state_dict": optimizer,
        }
        name = f"zero_pp_rank_{rank}_mp_rank_00"
        torch.save({"optimizer_state_dict": state}, directory / f"bf16_{name}_optim_states.pt")
        torch.save({"param_shapes": list(SHAPES)}, directory / f"{name}_model_states.pt")


def test_weights_and_moments_of_eleven_ranks_are_dealt_to_two(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 11)  # ranks 10 and 2: their order is not that of their names
    for rank in range(2):
        state = dealt_state(tmp_path, REGROUPED, rank, 2)
        wanted = [as_zero3(whole_parameters(shift), REGROUPED, 2) for shift in (1.0, 0.25, 0.5)]
        assert_same(state["fp32_flat_groups"], wanted[0][rank])
        assert (state["partition_count"], state["zero_stage"]) == (2, 3)
        optimizer = state["optimizer_state_dict"]
        assert optimizer["param_groups"] == [{"lr": 1e-3, "params": [0]}]
        assert optimizer["state"].keys() == {0}
        moments = optimizer["state"][0]
        assert float(moments["step"]) == STEPS
        assert_same([moments["exp_avg"]], wanted[1][rank])
        assert_same([moments["exp_avg_sq"]], wanted[2][rank])


def test_a_checkpoint_before_the_first_step_has_no_moments(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 2, stepped=False)
    assert dealt_state(tmp_path, SHAPES, 0, 1)["optimizer_state_dict"]["state"] == {}


def test_the_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 2)
    other = [{**SHAPES[0], "norm": torch.Size((4,))}, SHAPES[1]]
    with pytest.raises(UserError, match="another model; norm is not the same parameter"):
        dealt_state(tmp_path, other, 0, 1)


def test_a_file_of_a_rank_that_is_missing_is_said(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3)
    (tmp_path / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(UserError, match=re.escape("optim_states.pt are of the ranks [0, 2]")):
        dealt_state(tmp_path, SHAPES, 0, 1)
