"""Part `reward`: a reward model in plain transformers, in bfloat16 beside float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from launch.gpu.parts import Bench
from launch.gpu.shapes import SMALL, dimensions, random_model, timed

# Of the spread of the scores: an error that is larger orders answers anew. A pair counts as ordered
# where the scores in float32 are further apart than a tenth of the spread.
_ERROR_BOUND = 0.1
_ORDER_BOUND = 0.98
_APART = 0.1


def measure(bench: Bench) -> None:
    """Random answers of two lengths, each scored with both dtypes."""
    dims = dimensions(bench, SMALL)
    exact: Any = random_model(bench, dims, scores=True, dtype="float32").eval()
    with torch.no_grad():
        exact.score.weight.normal_(std=dims.hidden**-0.5)  # scores then spread over about one
    rounded: Any = random_model(bench, dims, scores=True, dtype="bfloat16").eval()
    rounded.load_state_dict(exact.state_dict())
    lengths = ((32, 16), (64, 8)) if bench.is_rehearsal else ((512, 256), (4096, 64))
    for length, count in lengths:
        torch.manual_seed(length)
        ids = torch.randint(10, dims.vocab, (count, length), device=bench.device)
        batch = max(1, (512 if bench.is_rehearsal else 65_536) // length)
        wanted, found = _scores(exact, ids, batch), _scores(rounded, ids, batch)
        spread = float(wanted.std())
        name = f"{length} tokens"
        error = float((found - wanted).abs().max()) / spread
        bench.record(f"{name}: largest error", error, "of the spread", most=_ERROR_BOUND)
        agreement = rank_agreement(found, wanted, _APART * spread)
        bench.record(f"{name}: pairs in the same order", agreement, least=_ORDER_BOUND)
        for dtype, model in (("bfloat16", rounded), ("float32", exact)):
            seconds, _ = timed(
                bench, lambda made=model, ids=ids, batch=batch: _scores(made, ids, batch)
            )
            bench.record(f"{name}: {dtype}", count / seconds, "answers/s")


def _scores(model: Any, ids: Tensor, batch: int) -> Tensor:  # noqa: ANN401 - a transformers model
    with torch.no_grad():
        return torch.cat([model(input_ids=some).logits[:, 0].float() for some in ids.split(batch)])


def rank_agreement(found: Tensor, wanted: Tensor, apart: float) -> float:
    """Share of the pairs that stand in the same order, of those that are at least `apart`.

    >>> rank_agreement(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.9]), 0.5)
    1.0
    """
    gaps, theirs = wanted[:, None] - wanted, found[:, None] - found
    counted = gaps.abs() >= apart
    same = (gaps.sign() == theirs.sign()) & counted
    return float(same.sum() / counted.sum().clamp(min=1))
