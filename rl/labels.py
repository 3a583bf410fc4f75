"""Labels of a microbatch: what the loss reads of each sample, and where.

Axes: T tokens of a sample, M labels of a microbatch, K tokens that a token was sampled among.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rl.types import FloatArray, IntArray, Sample

Readout = Literal["completion", "last", "last_and_lm"]


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
    """Supports of all labels, as wide as the widest; None where samples have none."""
    given = [support_TK for support_TK in supports if support_TK is not None]
    if not given:
        return None
    if len(given) < len(supports):
        raise ValueError("samples with and without recorded tokens do not share a microbatch")
    width = max(support_TK.shape[1] for support_TK in given)
    return np.concatenate(
        [np.pad(s, ((0, 0), (0, width - s.shape[1])), constant_values=-1) for s in given]
    )


def _joined(arrays: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype)
