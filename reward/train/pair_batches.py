"""Bradley-Terry training data: preference pairs as trainable sequences, figures, golden scores.

The loss is `rl.loss.PairObjective`; the ranks are those that also train policies.
"""

# transformers and torch are typed in parts; what leaves them is narrowed before use.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from conf.errors import EngineError
from reward.assess.figures import pair_figures
from reward.model.files import architectures_of
from reward.model.golden import GOLDEN_SCORES
from reward.model.text_path import TextPath
from reward.pairs.pairs import Pair
from rl.base.files import replace_file
from rl.packing import shared_frac
from rl.types import FloatArray, Sample

_INTERVAL_SEED = 0  # one for all steps, so that their intervals can be compared
_PADDED_TOLERANCE = 1e-3  # of scores in float32
_NUM_PROBES = 4  # pairs whose scores reward actors check themselves with


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPairs:
    """Pairs as samples 2i (chosen) and 2i + 1 (rejected), and what did not fit.

    Pairs that the context cuts are left out: what was cut may be what makes the difference.
    """

    pairs: tuple[Pair, ...]
    samples: tuple[Sample, ...]
    num_truncated: int  # pairs

    @property
    def num_tokens(self) -> int:
        """Of all samples, each counted by itself."""
        return sum(sample.token_ids.size for sample in self.samples)

    @property
    def shared_share(self) -> float:
        """Share of the tokens that need not be held twice when a pair shares its prefix."""
        return shared_frac(self.samples, group_of=2)


def encode_pairs(
    pairs: Sequence[Pair], text_path: TextPath, *, with_lm: bool = False
) -> EncodedPairs:
    """Encode as the reward actors do; `with_lm` marks the chosen code for the LM regulariser."""
    kept: list[Pair] = []
    samples: list[Sample] = []
    for pair in pairs:
        both = [
            text_path.encode(pair.question_content, code) for code in (pair.code_pos, pair.code_neg)
        ]
        if any(encoded.truncated for encoded in both):
            continue
        kept.append(pair)
        samples += [
            Sample(
                prompt_id=pair.prompt_id,
                sample_idx=side,
                token_ids=encoded.token_ids,
                num_prompt_tokens=encoded.code_start if with_lm and side == 0 else 0,
                rollout_logprobs=np.zeros(0, dtype=np.float32),
                advantage=0.0,
                policy_version=0,
            )
            for side, encoded in enumerate(both)
        ]
    return EncodedPairs(
        pairs=tuple(kept), samples=tuple(samples), num_truncated=len(pairs) - len(kept)
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationFigures:
    """What the scores of a model in training say of the validation pairs."""

    num_pairs: int
    accuracy: float  # share of pairs whose chosen program scores higher; a tie counts as wrong
    accuracy_interval: tuple[float, float]  # 95 %, by resampling problems
    ties: float  # share
    loss: float  # mean of -log sigmoid(s_chosen - s_rejected)
    accuracy_by_source: dict[str, float]  # of the negative

    @property
    def rank(self) -> tuple[float, float]:
        """The higher, the better the model."""
        return self.accuracy, -self.loss

    def undone_by(self, trained: ValidationFigures) -> str:
        """What to do where these are better than those after a training; "" where they are not."""
        if self.rank <= trained.rank:
            return ""
        return (
            f"the model that the training began with was better: accuracy {self.accuracy:.4f} and "
            f"loss {self.loss:.4f} of the validation pairs, now {trained.accuracy:.4f} and "
            f"{trained.loss:.4f}; keep that one, or train with a lower lr"
        )


def validation_figures(scores: FloatArray, pairs: Sequence[Pair]) -> ValidationFigures:
    """Figures of scores [2N], chosen and rejected in turn, of N pairs."""
    margins = np.asarray(scores[0::2], dtype=np.float64) - np.asarray(scores[1::2])
    problems, sources = [p.prompt_id for p in pairs], [p.source for p in pairs]
    found = pair_figures(margins.tolist(), problems, sources, _INTERVAL_SEED)
    accuracy = found.figures["accuracy"]
    return ValidationFigures(
        num_pairs=len(pairs),
        accuracy=accuracy.value,
        accuracy_interval=(accuracy.low, accuracy.high),
        ties=found.figures["ties"].value,
        loss=found.figures["loss"].value,
        accuracy_by_source={source: figure.value for source, figure in found.by_source.items()},
    )


def golden_probes(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """Problems with a right and a wrong program each, for golden scores."""
    some = pairs[:_NUM_PROBES]
    return [(p.question_content, p.code_pos) for p in some] + [
        (p.question_content, p.code_neg) for p in some
    ]


def write_golden_scores(
    directory: Path,
    text_path: TextPath,
    probes: Sequence[tuple[str, str]],
    path: Path | None = None,
) -> None:
    """Score (question, code) probes with plain transformers in float32 and store the result.

    It goes into the model's directory unless `path` is another file. Reward actors compare
    themselves with these scores when they start.

    Raises:
        EngineError: when plain transformers reads a padded batch of them otherwise, as it does
            where the chat template ends with the padding token.
    """
    # A head with a bias is that of a token classifier.
    of_tokens = any(name.endswith("ForTokenClassification") for name in architectures_of(directory))
    factory = AutoModelForTokenClassification if of_tokens else AutoModelForSequenceClassification
    model = factory.from_pretrained(directory, dtype=torch.float32, use_safetensors=True).eval()
    rows_N = [
        text_path.encode(question, code).token_ids.astype(np.int64) for question, code in probes
    ]
    with torch.no_grad():
        scores_N = [float(model(torch.from_numpy(row)[None]).logits.ravel()[-1]) for row in rows_N]
        padded_N = _score_padded(model, rows_N)
    pad = model.config.get_text_config().pad_token_id
    difference = float(np.abs(np.array(scores_N) - padded_N).max())
    if any(row[-1] == pad for row in rows_N) or not difference <= _PADDED_TOLERANCE:
        raise EngineError(
            f"the reward model in {directory} is not read at its last token by plain transformers: "
            f"its texts end with its padding ({pad}), or a padded batch scores {difference:.3g} "
            "away from single texts; give it a pad_token_id that its chat template never ends with"
        )
    stored = [
        {"question": question, "code": code, "score": score}
        for (question, code), score in zip(probes, scores_N, strict=True)
    ]
    replace_file(path or directory / GOLDEN_SCORES, json.dumps(stored, indent=1))


def _score_padded(model: Any, rows_N: Sequence[NDArray[np.int64]]) -> FloatArray:  # noqa: ANN401
    """Scores of plain transformers for a batch that is padded on the right."""
    longest = max(map(len, rows_N))
    pad = model.config.get_text_config().pad_token_id
    ids_NL = np.full((len(rows_N), longest), pad, dtype=np.int64)
    mask_NL = np.zeros_like(ids_NL)
    for index, row in enumerate(rows_N):
        ids_NL[index, : len(row)] = row
        mask_NL[index, : len(row)] = 1
    found = model(torch.from_numpy(ids_NL), attention_mask=torch.from_numpy(mask_NL))
    if found.logits.ndim == 3:  # of each token
        return found.logits[np.arange(len(rows_N)), mask_NL.sum(axis=1) - 1, 0].float().numpy()
    return found.logits[:, 0].float().numpy()
