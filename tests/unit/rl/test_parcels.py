"""A minibatch travels as its samples, and arrives as the microbatches that it was planned as."""

from __future__ import annotations

import pickle
from dataclasses import fields

import numpy as np
import pytest

from rl.packing import Packing, build_minibatch
from rl.types import Sample

pytestmark = pytest.mark.unit


def samples(num_prompts: int, group_size: int, num_tokens: int) -> list[Sample]:
    """Groups whose completions begin alike."""
    rng = np.random.default_rng(0)
    found: list[Sample] = []
    for prompt in range(num_prompts):
        begin = rng.integers(0, 50, num_tokens // 2, np.int32)
        for index in range(group_size):
            own = rng.integers(0, 50, num_tokens - begin.size, np.int32)
            found.append(
                Sample(
                    prompt_id=f"p{prompt}",
                    sample_idx=index,
                    token_ids=np.concatenate([begin, own]),
                    num_prompt_tokens=begin.size // 2,
                    rollout_logprobs=rng.random(num_tokens - begin.size // 2, np.float32),
                    advantage=float(index) - 1.0,
                    policy_version=0,
                )
            )
    return found


@pytest.mark.parametrize("share_prefix", ["on", "off"])
@pytest.mark.parametrize("num_tokens", [8, 500])
def test_a_parcel_makes_the_same_microbatch_on_the_other_side(share_prefix, num_tokens):
    made = samples(3, 4, num_tokens)
    packing = Packing(num_ranks=2, microbatch_tokens=4 * num_tokens, share_prefix=share_prefix)
    minibatch = build_minibatch(made, packing)
    sent = pickle.loads(pickle.dumps(minibatch.parcels_by_rank))
    arrived = [[parcel.microbatch() for parcel in parcels] for parcels in sent]
    for here, there in zip(minibatch.microbatches_by_rank, arrived, strict=True):
        for one, other in zip(here, there, strict=True):
            for field in fields(one):
                np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    indices = {int(i) for mbs in arrived for mb in mbs for i in mb.sample_index_M}
    assert indices == set(range(len(made)))


@pytest.mark.parametrize("share_prefix", ["on", "off"])
def test_what_travels_is_ids_and_log_probs(share_prefix):
    made = samples(2, 4, 4000)
    packing = Packing(num_ranks=2, microbatch_tokens=40_000, share_prefix=share_prefix)
    minibatch = build_minibatch(made, packing)
    sent = sum(len(pickle.dumps(parcels, protocol=5)) for parcels in minibatch.parcels_by_rank)
    assert sent < 8.5 * minibatch.num_sample_tokens
    arrays = sum(
        getattr(mb, field.name).nbytes
        for mbs in minibatch.microbatches_by_rank
        for mb in mbs
        for field in fields(mb)
        if getattr(mb, field.name) is not None
    )
    assert arrays > 2 * sent  # what a rank reads is more, even where prefixes are shared


def test_a_rank_without_samples_has_padding_alone():
    minibatch = build_minibatch(samples(1, 1, 20), Packing(num_ranks=2, microbatch_tokens=64))
    (idle,) = minibatch.microbatches_by_rank[1]
    assert idle.place_M.size == 0
    assert not idle.token_ids_RL.any()
