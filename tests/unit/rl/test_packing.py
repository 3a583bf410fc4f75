"""Invariants of packing, the last of them with a real model: it changes no loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import UserError
from rl.loss import (
    LossDenominators,
    MicrobatchTensors,
    NllObjective,
    PairObjective,
    PolicyObjective,
    attention_mask,
)
from rl.packing import build_minibatch, num_shared_tokens, split_minibatches, unpack
from rl.types import Sample

pytestmark = pytest.mark.unit


def make_sample(num_prompt, num_completion, *, prompt_id="p", sample_idx=0, advantage=0.5):
    num_tokens = num_prompt + num_completion
    return Sample(
        prompt_id=prompt_id,
        sample_idx=sample_idx,
        token_ids=np.arange(1, num_tokens + 1, dtype=np.int32) + 100 * sample_idx,
        num_prompt_tokens=num_prompt,
        rollout_logprobs=-np.arange(1, num_completion + 1, dtype=np.float32),
        advantage=advantage,
        policy_version=0,
    )


def microbatches(minibatch):
    return [mb for rank in minibatch.microbatches_by_rank for mb in rank]


def arrays(minibatch):
    return [
        getattr(mb, name)
        for mb in microbatches(minibatch)
        for name in type(mb).__dataclass_fields__
    ]


lengths = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 28)), min_size=1, max_size=30)


@st.composite
def cases(draw):
    """Samples and a way to pack them that is possible."""
    group_of = draw(st.sampled_from([1, 2]))
    drawn = draw(lengths)
    drawn = drawn[: len(drawn) // group_of * group_of] or drawn * group_of
    made = [
        make_sample(p, c, prompt_id=f"p{idx}", sample_idx=idx, advantage=idx + 1.0)
        for idx, (p, c) in enumerate(drawn)
    ]
    return made, {
        "num_ranks": draw(st.integers(1, 4)),
        "microbatch_tokens": draw(st.integers(48 * group_of, 300)),
        "row_tokens": draw(st.sampled_from([0, 1, 16, 50, 1000])),
        "group_of": group_of,
        "readout": draw(st.sampled_from(["completion", "last"])),
    }


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_what_was_packed_is_unpacked_by_sample_and_in_order(case):
    made, options = case
    packed = microbatches(build_minibatch(made, **options | {"readout": "completion"}))
    found = unpack(packed, [mb.rollout_logprobs_RL for mb in packed])
    assert sorted(found) == list(range(len(made)))
    for index, sample in enumerate(made):
        np.testing.assert_array_equal(found[index], sample.rollout_logprobs)


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_every_sample_is_placed_whole_and_once_within_the_budget(case):
    made, options = case
    minibatch = build_minibatch(made, **options)
    per_rank = {len(rank) for rank in minibatch.microbatches_by_rank}
    assert len(minibatch.microbatches_by_rank) == options["num_ranks"]
    assert len(per_rank) == 1
    assert minibatch.num_samples == len(made)
    places = {}
    for number, mb in enumerate(microbatches(minibatch)):
        assert mb.token_ids_RL.size <= max(options["microbatch_tokens"], 16)
        for row, index_L in enumerate(mb.sample_index_RL):
            runs = [index for index in dict.fromkeys(index_L.tolist()) if index >= 0]
            for index in runs:
                columns = np.flatnonzero(index_L == index)
                assert index not in places
                places[index] = (number, row)
                tokens = made[index].token_ids
                assert columns.tolist() == list(range(columns[0], columns[0] + tokens.size))
                np.testing.assert_array_equal(mb.token_ids_RL[row, columns], tokens)
                np.testing.assert_array_equal(
                    mb.position_ids_RL[row, columns], np.arange(tokens.size)
                )
            num_used = int((index_L >= 0).sum())
            units = {index // options["group_of"] for index in runs}
            limit = options["row_tokens"] or options["microbatch_tokens"]
            assert num_used <= limit or len(units) == 1
            assert (index_L[num_used:] == -1).all()
            assert (mb.position_ids_RL[row, num_used:] == 0).all()
    assert sorted(places) == list(range(len(made)))
    for first in range(0, len(made), options["group_of"]):
        group = range(first, first + options["group_of"])
        assert len({places[index] for index in group}) == 1


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_the_loss_reads_each_sample_exactly_where_it_should(case):
    made, options = case
    minibatch = build_minibatch(made, **options)
    num_read = 0
    for mb in microbatches(minibatch):
        off_RL = mb.loss_mask_RL == 0
        assert set(np.unique(mb.loss_mask_RL)) <= {0.0, 1.0}
        for quantity in (
            mb.target_ids_RL,
            mb.advantages_RL,
            mb.rollout_logprobs_RL,
            mb.sequence_weight_RL,
        ):
            assert (quantity[off_RL] == 0).all()
        for index in set(mb.sample_index_RL.flatten().tolist()) - {-1}:
            sample, inside_RL = made[index], mb.sample_index_RL == index
            read_T = np.flatnonzero(mb.loss_mask_RL[inside_RL])
            num_read += read_T.size
            target_T = mb.target_ids_RL[inside_RL][read_T]
            logprobs_T = mb.rollout_logprobs_RL[inside_RL][read_T]
            num_tokens, num_prompt = sample.token_ids.size, sample.num_prompt_tokens
            if options["readout"] == "last":
                assert read_T.tolist() == [num_tokens - 1]
                assert target_T.tolist() == logprobs_T.tolist() == [0]
            else:
                assert read_T.tolist() == list(range(num_prompt - 1, num_tokens - 1))
                np.testing.assert_array_equal(target_T, sample.token_ids[num_prompt:])
                np.testing.assert_array_equal(logprobs_T, sample.rollout_logprobs)
            assert set(mb.advantages_RL[inside_RL][read_T]) == {sample.advantage}
            assert mb.sequence_weight_RL[inside_RL].sum() == pytest.approx(1.0)
    assert num_read == minibatch.num_loss_tokens


@settings(max_examples=30, deadline=None)
@given(case=cases())
def test_packing_is_deterministic(case):
    made, options = case
    for first, second in zip(
        arrays(build_minibatch(made, **options)),
        arrays(build_minibatch(made, **options)),
        strict=True,
    ):
        np.testing.assert_array_equal(first, second)


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_rounds_are_as_few_as_without_balancing(case):
    """Two neighbouring microbatches of any packing cannot both be half empty."""
    made, options = case
    minibatch = build_minibatch(made, **{**options, "row_tokens": 0})
    num_rounds = len(minibatch.microbatches_by_rank[0])
    total = sum(sample.token_ids.size for sample in made)
    num_full = -(-2 * total // options["microbatch_tokens"])  # first fit leaves one bin half empty
    assert num_rounds <= -(-max(1, num_full) // options["num_ranks"])


def test_arrays_have_the_types_and_layout_that_types_states():
    made = [make_sample(2, 3), make_sample(1, 1, sample_idx=1, advantage=-2.0)]
    (mb,) = microbatches(build_minibatch(made, 1, 8, 0))
    assert mb.token_ids_RL.tolist() == [[1, 2, 3, 4, 5, 101, 102]]
    assert mb.position_ids_RL.tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    assert mb.target_ids_RL.tolist() == [[0, 3, 4, 5, 0, 102, 0]]
    assert mb.loss_mask_RL.tolist() == [[0, 1, 1, 1, 0, 1, 0]]
    assert mb.advantages_RL.tolist() == [[0, 0.5, 0.5, 0.5, 0, -2, 0]]
    assert mb.rollout_logprobs_RL.tolist() == [[0, -1, -2, -3, 0, -1, 0]]
    np.testing.assert_allclose(mb.sequence_weight_RL, [[0, 1 / 3, 1 / 3, 1 / 3, 0, 1, 0]])
    assert mb.sample_index_RL.tolist() == [[0, 0, 0, 0, 0, 1, 1]]
    for name in ("token_ids_RL", "position_ids_RL", "target_ids_RL", "sample_index_RL"):
        assert getattr(mb, name).dtype == np.int32
    for name in ("loss_mask_RL", "advantages_RL", "rollout_logprobs_RL", "sequence_weight_RL"):
        assert getattr(mb, name).dtype == np.float32


def test_rows_are_filled_first_fit_decreasing():
    made = [make_sample(1, n - 1, sample_idx=i) for i, n in enumerate((3, 6, 4, 7))]
    (mb,) = microbatches(build_minibatch(made, 1, 100, 10))
    assert [list(dict.fromkeys(row)) for row in mb.sample_index_RL.tolist()] == [[3, 0], [1, 2]]
    assert mb.token_ids_RL.shape == (2, 10)


def test_ranks_without_work_get_a_small_microbatch_that_is_masked_out():
    minibatch = build_minibatch([make_sample(2, 3)], 3, 64, 0)
    assert [len(rank) for rank in minibatch.microbatches_by_rank] == [1, 1, 1]
    for (idle,) in minibatch.microbatches_by_rank[1:]:
        assert idle.token_ids_RL.shape == (1, 16)
        assert not idle.loss_mask_RL.any()
        assert (idle.sample_index_RL == -1).all()


def test_work_is_spread_over_the_ranks_before_a_microbatch_is_full():
    made = [make_sample(4, 6, sample_idx=i) for i in range(8)]
    minibatch = build_minibatch(made, 2, 1000, 0)
    assert [[mb.token_ids_RL.size for mb in rank] for rank in minibatch.microbatches_by_rank] == [
        [40],
        [40],
    ]


def test_the_microbatches_of_a_round_are_about_equal():
    rng = np.random.default_rng(0)
    made = [make_sample(40, int(n), sample_idx=i) for i, n in enumerate(rng.integers(10, 90, 128))]
    minibatch = build_minibatch(made, 2, 4096, 256)
    for round_ in zip(*minibatch.microbatches_by_rank, strict=True):
        sizes = [mb.token_ids_RL.size for mb in round_]
        assert min(sizes) > 0.9 * max(sizes)
    used = sum((mb.sample_index_RL >= 0).sum() for mb in microbatches(minibatch))
    assert used > 0.9 * sum(mb.token_ids_RL.size for mb in microbatches(minibatch))


def test_microbatches_of_similar_size_meet_in_a_round():
    made = [make_sample(1, n - 1, sample_idx=i) for i, n in enumerate((60, 50, 50, 49, 49, 40))]
    first, second = build_minibatch(made, 2, 100, 1).microbatches_by_rank
    sizes = [(a.token_ids_RL.size, b.token_ids_RL.size) for a, b in zip(first, second, strict=True)]
    assert sizes == [(100, 98), (60, 40)]


def test_a_sample_longer_than_a_row_gets_a_row_of_its_own():
    made = [make_sample(5, 25), make_sample(2, 3, sample_idx=1)]
    minibatch = build_minibatch(made, 1, 64, 8)
    rows = [row for mb in microbatches(minibatch) for row in mb.sample_index_RL]
    assert sorted(sorted(set(row.tolist()) - {-1}) for row in rows) == [[0], [1]]


@pytest.mark.parametrize("group_of", [1, 2])
def test_a_sample_longer_than_a_microbatch_is_refused_with_the_key_to_change(group_of):
    made = [make_sample(5, 60, prompt_id="minipy/7"), make_sample(5, 60, prompt_id="minipy/7")]
    with pytest.raises(UserError) as caught:
        build_minibatch(made, 1, 64, 0, group_of=group_of)
    for part in ("minipy/7", str(65 * group_of), "policy.microbatch_tokens=64"):
        assert part in str(caught.value)


def test_a_sample_that_fills_a_microbatch_exactly_is_accepted():
    (mb,) = microbatches(build_minibatch([make_sample(4, 60)], 1, 64, 0))
    assert mb.token_ids_RL.shape == (1, 64)


@pytest.mark.parametrize(
    ("made", "options", "rule"),
    [
        ([], {}, "positive multiple of 1"),
        ([make_sample(1, 1)] * 3, {"group_of": 2}, "positive multiple of 2"),
        ([make_sample(3, 0)], {}, "at least one prompt and one completion token"),
        ([make_sample(0, 3)], {}, "at least one prompt and one completion token"),
        ([make_sample(0, 0)], {"readout": "last"}, "has no tokens"),
    ],
)
def test_samples_that_can_not_be_trained_are_refused(made, options, rule):
    with pytest.raises(ValueError, match=rule):
        build_minibatch(made, 1, 64, 0, **options)


def test_rollout_logprobs_of_another_length_are_refused():
    sample = make_sample(2, 3, prompt_id="minipy/7")
    sample = Sample(
        **{name: getattr(sample, name) for name in Sample.__slots__ if name != "rollout_logprobs"},
        rollout_logprobs=np.zeros(4, np.float32),
    )
    with pytest.raises(
        ValueError, match="'minipy/7' has 3 completion tokens, but 4 rollout_logprobs"
    ):
        build_minibatch([sample], 1, 64, 0)


@given(sizes=st.lists(st.integers(1, 5), max_size=12), num=st.integers(1, 6))
def test_splitting_keeps_prompts_whole_and_in_order_and_makes_nothing_empty(sizes, num):
    made = [
        make_sample(1, 1, prompt_id=f"p{prompt}", sample_idx=idx)
        for prompt, size in enumerate(sizes)
        for idx in range(size)
    ]
    parts = split_minibatches(made, num)
    assert len(parts) == min(num, len(sizes))
    assert [s for part in parts for s in part] == made
    prompts = [{s.prompt_id for s in part} for part in parts]
    assert sum(len(p) for p in prompts) == len(sizes)
    assert not prompts or max(map(len, prompts)) - min(map(len, prompts)) <= 1
    assert all(prompts)


def test_splitting_joins_completions_of_a_prompt_that_lie_apart():
    made = [make_sample(1, 1, prompt_id=p, sample_idx=i) for i, p in enumerate("abab")]
    parts = split_minibatches(made, 2)
    assert [[s.prompt_id for s in part] for part in parts] == [["a", "a"], ["b", "b"]]


def test_splitting_into_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        split_minibatches([], 0)


# --- packing changes nothing, with a real model ---------------------------------------------------


def random_samples(num, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for idx in range(num):
        num_prompt, num_completion = rng.integers(1, 6), rng.integers(1, 12)
        made.append(
            Sample(
                prompt_id=f"p{idx // 4}",
                sample_idx=idx % 4,
                token_ids=rng.integers(1, 60, num_prompt + num_completion).astype(np.int32),
                num_prompt_tokens=int(num_prompt),
                rollout_logprobs=-rng.exponential(2, num_completion).astype(np.float32),
                advantage=float(rng.normal()),
                policy_version=0,
            )
        )
    return made


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        attn_implementation=request.param,
        initializer_range=0.3,  # far from uniform, so that leaking context would show
    )
    return transformers.Qwen3ForCausalLM(config).eval()


def minibatch_figures(model, objective, minibatch, reference=None):
    """Loss, metrics and gradient of a minibatch, summed over its ranks and microbatches."""
    norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
    model.zero_grad()
    totals = {}
    for microbatch in (mb for rank in minibatch.microbatches_by_rank for mb in rank):
        mb = MicrobatchTensors.from_microbatch(microbatch, "cpu")
        logits = model(
            input_ids=mb.token_ids_RL,
            position_ids=mb.position_ids_RL,
            attention_mask=None,
            use_cache=False,
        ).logits
        if isinstance(objective, PairObjective):
            outputs_RL = logits[..., 0]
        else:
            outputs_RL = logits.log_softmax(-1).gather(-1, mb.target_ids_RL[..., None])[..., 0]
        ref_RL = outputs_RL.detach() * 0.9 if reference else None
        loss, metrics = objective(outputs_RL, mb, None, ref_RL, norm)
        loss.backward()
        for name, value in {"loss": loss.detach(), **metrics}.items():
            totals[name] = totals.get(name, 0.0) + value.item()
    return totals, torch.cat([p.grad.flatten() for p in model.parameters()])


PACKINGS = [(1, 256, 0), (3, 64, 20)]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (PolicyObjective(kl_coef=0.1), {}),
        (PolicyObjective(aggregation="sequence_mean"), {}),
        (NllObjective(), {}),
        (PairObjective(centring=0.01), {"group_of": 2, "readout": "last"}),
    ],
)
def test_packing_changes_neither_loss_nor_metrics_nor_gradient(model, objective, options, packing):
    made = random_samples(10)
    num_ranks, microbatch_tokens, row_tokens = packing
    packed = build_minibatch(made, num_ranks, microbatch_tokens, row_tokens, **options)
    alone = build_minibatch(made, 1, 40, 1, **options)  # a row for each sample (or pair)
    figures, gradient = minibatch_figures(model, objective, packed, reference=True)
    expected, expected_gradient = minibatch_figures(model, objective, alone, reference=True)
    assert figures == pytest.approx(expected, abs=1e-6, rel=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_packed_logprobs_are_those_of_each_sample_alone(model):
    """Against the model called on one unpadded sequence, which knows nothing of packing."""
    made = random_samples(10, seed=1)
    for packing in PACKINGS:
        minibatch = build_minibatch(made, *packing)
        for microbatch in (mb for rank in minibatch.microbatches_by_rank for mb in rank):
            mb = MicrobatchTensors.from_microbatch(microbatch, "cpu")
            with torch.no_grad():
                logits = model(
                    input_ids=mb.token_ids_RL,
                    position_ids=mb.position_ids_RL,
                    attention_mask=None,
                    use_cache=False,
                ).logits
                logprobs_RL = logits.log_softmax(-1).gather(-1, mb.target_ids_RL[..., None])[..., 0]
            for index in set(mb.sample_index_RL.flatten().tolist()) - {-1}:
                sample = made[index]
                tokens = torch.tensor(sample.token_ids, dtype=torch.int64)
                with torch.no_grad():
                    alone = model(input_ids=tokens[None], use_cache=False).logits[0].log_softmax(-1)
                start = sample.num_prompt_tokens
                expected = alone[start - 1 : -1].gather(-1, tokens[start:, None])[:, 0]
                found = logprobs_RL[(mb.sample_index_RL == index) & (mb.loss_mask_RL > 0)]
                torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)


# --- pairs that share their prefix ----------------------------------------------------------------


def pair_samples(num_pairs, seed=0):
    """Pairs of sequences with a common start; the chosen one knows where its code begins."""
    rng = np.random.default_rng(seed)
    made = []
    for pair in range(num_pairs):
        prefix = rng.integers(1, 60, rng.integers(1, 9))
        for side in range(2):
            own = rng.integers(1, 60, rng.integers(2, 8))
            own[0] = 60 + side  # the first difference
            made.append(
                Sample(
                    prompt_id=f"p{pair}",
                    sample_idx=side,
                    token_ids=np.concatenate([prefix, own]).astype(np.int32),
                    num_prompt_tokens=prefix.size if side == 0 else 0,
                    rollout_logprobs=np.zeros(0, np.float32),
                    advantage=0.0,
                    policy_version=0,
                )
            )
    return made


def pair_outputs(model, mb):
    """Scores at the read-outs, log-probs where the regulariser reads."""
    mask_RLL = attention_mask(mb)
    additive = None
    if mask_RLL is not None:
        additive = torch.zeros(mask_RLL.shape).masked_fill(~mask_RLL, -1e30)[:, None]
    logits = model(
        input_ids=mb.token_ids_RL,
        position_ids=mb.position_ids_RL,
        attention_mask=additive,
        use_cache=False,
    ).logits
    logprobs_RL = logits.log_softmax(-1).gather(-1, mb.target_ids_RL[..., None])[..., 0]
    return torch.where(mb.lm_mask_RL > 0, logprobs_RL, logits[..., 0])


def pair_loss(model, minibatch, objective):
    norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
    model.zero_grad()
    totals = {}
    for microbatch in microbatches(minibatch):
        mb = MicrobatchTensors.from_microbatch(microbatch, "cpu")
        loss, metrics = objective(pair_outputs(model, mb), mb, None, None, norm)
        loss.backward()
        for name, value in {"loss": loss.detach(), **metrics}.items():
            totals[name] = totals.get(name, 0.0) + value.item()
    return totals, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("readout", ["last", "last_and_lm"])
@pytest.mark.parametrize("packing", [(1, 256, 0), (2, 64, 24)])
def test_sharing_the_prefix_changes_neither_loss_nor_metrics_nor_gradient(model, packing, readout):
    made = pair_samples(7)
    objective = PairObjective(centring=0.01, lm_coef=0.25 if readout == "last_and_lm" else 0.0)
    options = {"group_of": 2, "readout": readout}
    shared = build_minibatch(made, *packing, share_prefix=True, **options)
    alone = build_minibatch(made, 1, 64, 1, **options)
    figures, gradient = pair_loss(model, shared, objective)
    expected, expected_gradient = pair_loss(model, alone, objective)
    assert figures == pytest.approx(expected, abs=1e-6, rel=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_a_shared_prefix_is_held_once():
    made = pair_samples(7)
    minibatch = build_minibatch(made, 1, 256, 0, group_of=2, readout="last", share_prefix=True)
    held = sum(int((mb.sample_index_RL >= 0).sum()) for mb in microbatches(minibatch))
    whole = sum(sample.token_ids.size for sample in made)
    saved = sum(num_shared_tokens(one, two) for one, two in zip(made[::2], made[1::2], strict=True))
    assert held == whole - saved < whole
    for mb in microbatches(minibatch):
        for index in range(1, len(made), 2):
            inside_RL = mb.sample_index_RL == index
            start = num_shared_tokens(made[index - 1], made[index])
            tokens = made[index].token_ids[start:]
            np.testing.assert_array_equal(mb.token_ids_RL[inside_RL], tokens)
            assert mb.position_ids_RL[inside_RL].tolist() == list(
                range(start, made[index].token_ids.size)
            )


def test_equal_sequences_keep_a_token_of_their_own():
    made = [make_sample(3, 2, sample_idx=0)] * 2
    assert num_shared_tokens(*made) == 4
    minibatch = build_minibatch(made, 1, 64, 0, group_of=2, readout="last", share_prefix=True)
    (mb,) = microbatches(minibatch)
    assert mb.sample_index_RL.tolist() == [[0, 0, 0, 0, 0, 1]]
    assert mb.loss_mask_RL.tolist() == [[0, 0, 0, 0, 1, 1]]


def test_the_regulariser_reads_the_chosen_code_alone():
    made = pair_samples(3)
    minibatch = build_minibatch(made, 1, 256, 0, group_of=2, readout="last_and_lm")
    chosen = made[0::2]
    num_code = sum(sample.token_ids.size - sample.num_prompt_tokens for sample in chosen)
    assert minibatch.num_loss_tokens == num_code
    for mb in microbatches(minibatch):
        read_RL = mb.lm_mask_RL > 0
        assert set((mb.sample_index_RL[read_RL] % 2).tolist()) == {0}
        assert not (read_RL & (mb.loss_mask_RL > 0)).any()
        for index in range(0, len(made), 2):
            target_T = mb.target_ids_RL[read_RL & (mb.sample_index_RL == index)]
            code_T = made[index].token_ids[made[index].num_prompt_tokens :]
            np.testing.assert_array_equal(target_T, code_T)


# --- one sample per row ---------------------------------------------------------------------------


def test_without_packing_every_sample_has_a_row_of_its_own_from_position_0():
    samples = [
        make_sample(2, size - 2, prompt_id=str(i)) for i, size in enumerate((9, 3, 14, 5, 7))
    ]
    minibatch = build_minibatch(samples, 2, 40, 0, packs=False)
    seen: list[int] = []
    for mb in (mb for rank in minibatch.microbatches_by_rank for mb in rank):
        assert mb.token_ids_RL.size <= 40
        for index_L, position_L in zip(mb.sample_index_RL, mb.position_ids_RL, strict=True):
            (index,) = set(index_L.tolist()) - {-1} or {-1}
            if index < 0:
                continue
            seen.append(index)
            size = samples[index].token_ids.size
            np.testing.assert_array_equal(position_L[:size], np.arange(size))
            assert not (index_L[size:] >= 0).any()
    assert sorted(seen) == list(range(5))
    assert minibatch.num_loss_tokens == sum(s.token_ids.size - 2 for s in samples)


def test_without_packing_a_pair_shares_a_microbatch_but_no_row_and_no_prefix():
    samples = [
        make_sample(2, size - 2, prompt_id=str(i // 2))
        for i, size in enumerate((9, 3, 14, 5, 7, 8))
    ]
    minibatch = build_minibatch(
        samples, 1, 30, 0, group_of=2, readout="last", share_prefix=True, packs=False
    )
    homes: dict[int, int] = {}
    for number, mb in enumerate(minibatch.microbatches_by_rank[0]):
        for index_L, mask_L in zip(mb.sample_index_RL, mb.loss_mask_RL, strict=True):
            members = set(index_L.tolist()) - {-1}
            assert len(members) <= 1
            for index in members:
                homes[index] = number
                assert (index_L == index).sum() == samples[index].token_ids.size
                assert mask_L.sum() == 1
    assert sorted(homes) == list(range(6))
    assert all(homes[i] == homes[i + 1] for i in range(0, 6, 2))


def test_without_packing_ranks_take_equally_many_microbatches():
    samples = [make_sample(2, 8, prompt_id=str(i)) for i in range(7)]
    minibatch = build_minibatch(samples, 3, 20, 0, packs=False)
    assert len({len(rank) for rank in minibatch.microbatches_by_rank}) == 1
