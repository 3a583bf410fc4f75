"""Heads compute in float32, whatever hidden states and weights are in."""

import pytest
import torch
from torch import nn

from actors.engines.heads import ScoreHead

pytestmark = pytest.mark.unit


def test_large_scores_that_are_close_do_not_tie_in_bfloat16() -> None:
    """Scores around 20 in bfloat16 are multiples of 0.125 (`findings/trl_eval_accuracy.sh`)."""
    hidden_PH = torch.tensor([[4.0, 0.0], [4.0, 0.015625]], dtype=torch.bfloat16)
    head = ScoreHead(nn.Parameter(torch.tensor([[5.0, 1.0]], dtype=torch.bfloat16)))
    assert nn.functional.linear(hidden_PH, head.weight)[:, 0].tolist() == [20.0, 20.0]
    scores = head(hidden_PH, torch.arange(2), torch.arange(2))[0]
    assert scores.tolist() == [20.0, 20.015625]
