"""Answers become the sequences that RL will meet: same template, loss on the answer alone."""

from __future__ import annotations

import numpy as np
import pytest

from rl.packing import Packing, build_minibatch
from rl.problems import minipy
from rl.problems.tiny_model import make_tokenizer
from rl.problems.warm_start import answer_samples

pytestmark = pytest.mark.unit

ANSWERS = list(minipy.warm_start_answers(50, 0.3, seed=0))


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer("\n".join(pair) for pair in ANSWERS)


def test_a_sample_is_the_chat_prompt_then_the_answer_then_the_end_of_sequence(tokenizer):
    for (question, answer), sample in zip(ANSWERS, answer_samples(ANSWERS, tokenizer), strict=True):
        split = sample.num_prompt_tokens
        prompt = tokenizer.decode(sample.token_ids[:split])
        assert prompt == f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.decode(sample.token_ids[split:]) == f"{answer}<|im_end|>"
        assert sample.token_ids[-1] == tokenizer.eos_token_id
        assert sample.token_ids.dtype == np.int32


def test_the_loss_reads_every_token_of_the_answer_and_none_of_the_prompt(tokenizer):
    samples = answer_samples(ANSWERS[:8], tokenizer)
    minibatch = build_minibatch(samples, Packing(num_ranks=1, microbatch_tokens=4096))
    answers = [s.token_ids[s.num_prompt_tokens :].tolist() for s in samples]
    (microbatch,) = minibatch.microbatches_by_rank[0]
    for index, answer in enumerate(answers):
        read_M = microbatch.sample_index_M == index
        assert microbatch.target_ids_M[read_M].tolist() == answer


def test_every_answer_has_a_prompt_id_of_its_own(tokenizer):
    samples = answer_samples([ANSWERS[0]] * 3, tokenizer)
    assert len({sample.prompt_id for sample in samples}) == 3
