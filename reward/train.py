"""Bradley-Terry training data: preference pairs as trainable sequences, and golden scores.

The loss is `rl.loss.PairObjective`; the ranks are those that also train policies.
"""

# transformers and torch are typed in parts; what leaves them is narrowed before use.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from reward.model import TextPath
from reward.pairs import Pair
from rl.types import Sample

GOLDEN_SCORES = "golden_scores.json"


def pair_samples(pairs: Sequence[Pair], text_path: TextPath) -> list[Sample]:
    """Two samples for each pair, the chosen one first, encoded as the reward actors encode them."""
    return [
        Sample(
            prompt_id=pair.prompt_id,
            sample_idx=side,
            token_ids=text_path.encode(pair.question_content, code).token_ids,
            num_prompt_tokens=0,
            rollout_logprobs=np.zeros(0, dtype=np.float32),
            advantage=0.0,
            policy_version=0,
        )
        for pair in pairs
        for side, code in enumerate((pair.code_pos, pair.code_neg))
    ]


def shuffled_batches(
    samples: Sequence[Sample], batch_size: int, epochs: int, seed: int, group_of: int
) -> Iterator[list[Sample]]:
    """Batches of `batch_size` groups, each epoch in an order of its own; groups stay together.

    The last batch of an epoch is left out when it is not full.
    """
    num_groups = len(samples) // group_of
    for epoch in range(epochs):
        order = list(range(num_groups))
        random.Random(f"{seed}-{epoch}").shuffle(order)
        for start in range(0, num_groups - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            yield [
                sample
                for index in chosen
                for sample in samples[index * group_of : (index + 1) * group_of]
            ]


def write_golden_scores(
    directory: Path, text_path: TextPath, probes: Sequence[tuple[str, str]]
) -> None:
    """Score (question, code) probes with plain transformers in float32 and store the result.

    Reward actors compare themselves with these scores when they start.
    """
    model = AutoModelForSequenceClassification.from_pretrained(
        directory, dtype=torch.float32, use_safetensors=True
    ).eval()
    rows: list[dict[str, str | float]] = []
    for question, code in probes:
        ids = torch.from_numpy(text_path.encode(question, code).token_ids.astype(np.int64))
        with torch.no_grad():
            score = float(model(input_ids=ids[None]).logits[0, 0])
        rows.append({"question": question, "code": code, "score": score})
    (directory / GOLDEN_SCORES).write_text(json.dumps(rows, indent=1), encoding="utf-8")
