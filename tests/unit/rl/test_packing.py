"""Invariants of packing, the last of them with a real model: it changes no loss."""

from dataclasses import fields, replace

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
    Outputs,
    PairObjective,
    PolicyObjective,
)
from rl.packing import Packing, build_minibatch, shared_frac, shares, split_minibatches
from rl.parcels import unpack
from rl.prefix_tree import num_common
from rl.types import Sample

pytestmark = pytest.mark.unit


def packing(microbatch_tokens, row_tokens=0, num_ranks=1, **options):
    return Packing(
        num_ranks=num_ranks, microbatch_tokens=microbatch_tokens, row_tokens=row_tokens, **options
    )


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
    return [getattr(mb, field.name) for mb in microbatches(minibatch) for field in fields(mb)]


def seen_by(mb, place):
    """Row and columns of the tokens that the one at a place sees, itself among them."""
    row, column = divmod(int(place), mb.token_ids_RL.shape[1])
    if mb.subtree_end_RL is None:
        first = column - int(mb.position_ids_RL[row, column])
        return row, np.arange(first, column + 1)
    return row, np.flatnonzero(mb.subtree_end_RL[row, : column + 1] > column)


def rows_of(mb):
    """Row of each label."""
    return mb.place_M // mb.token_ids_RL.shape[1]


lengths = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 28)), min_size=1, max_size=30)


@st.composite
def cases(draw, share_prefix=("on", "auto", "off"), packs=(True,)):
    """Samples with much in common, and a way to pack them that is possible."""
    group_of = draw(st.sampled_from([1, 2]))
    drawn = draw(lengths)
    drawn = drawn[: len(drawn) // group_of * group_of] or drawn * group_of
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    num_of_prompt = draw(st.sampled_from([2, 4, 8]))  # completions
    prompts = rng.integers(1, 3, (30, 20))
    made = []
    for index, (num_prompt, num_completion) in enumerate(drawn):
        prompt = prompts[index // num_of_prompt, :num_prompt]
        tail = rng.integers(1, 3, num_completion)
        made.append(
            Sample(
                prompt_id=f"p{index // num_of_prompt}",
                sample_idx=index,
                token_ids=np.concatenate([prompt, tail]).astype(np.int32),
                num_prompt_tokens=num_prompt,
                rollout_logprobs=-rng.exponential(1, num_completion).astype(np.float32),
                advantage=index + 1.0,
                policy_version=0,
            )
        )
    how = packing(
        draw(st.integers(48 * group_of, 300)),
        draw(st.sampled_from([0, 1, 16, 50, 1000])),
        draw(st.integers(1, 4)),
        share_prefix=draw(st.sampled_from(share_prefix)),
        dense_mask=draw(st.booleans()),
        packs=draw(st.sampled_from(packs)),
    )
    readout = draw(st.sampled_from(["completion", "last", "last_and_lm"]))
    return made, how, {"group_of": group_of, "readout": readout}


@settings(max_examples=50, deadline=None)
@given(case=cases(packs=(True, False)))
def test_what_was_packed_is_unpacked_by_sample_and_in_order(case):
    made, how, options = case
    packed = microbatches(build_minibatch(made, how, group_of=options["group_of"]))
    found = unpack(packed, [mb.rollout_logprobs_M for mb in packed])
    assert sorted(found) == list(range(len(made)))
    for index, sample in enumerate(made):
        np.testing.assert_array_equal(found[index], sample.rollout_logprobs)


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_every_label_sees_its_sample_up_to_there_and_nothing_else_within_the_budget(case):
    made, how, options = case
    minibatch = build_minibatch(made, how, **options)
    per_rank = {len(rank) for rank in minibatch.microbatches_by_rank}
    assert len(minibatch.microbatches_by_rank) == how.num_ranks
    assert len(per_rank) == 1
    assert minibatch.num_samples == len(made)
    homes = {}
    for number, mb in enumerate(microbatches(minibatch)):
        assert mb.token_ids_RL.size <= max(how.microbatch_tokens, 16)
        for index, place in zip(mb.sample_index_M.tolist(), mb.place_M.tolist(), strict=True):
            row, columns = seen_by(mb, place)
            homes.setdefault(index, set()).add((number, row))
            tokens = made[index].token_ids[: columns.size]
            np.testing.assert_array_equal(mb.token_ids_RL[row, columns], tokens)
            np.testing.assert_array_equal(mb.position_ids_RL[row, columns], np.arange(tokens.size))
    assert sorted(homes) == list(range(len(made)))
    for first in range(0, len(made), options["group_of"]):
        group = range(first, first + options["group_of"])
        assert len(set().union(*(homes[index] for index in group))) == 1


@settings(max_examples=100, deadline=None)
@given(case=cases(share_prefix=("off",)))
def test_a_row_holds_whole_samples_up_to_its_size_and_then_padding(case):
    made, how, options = case
    minibatch = build_minibatch(made, how, **options)
    num_held = 0
    for mb in microbatches(minibatch):
        assert mb.subtree_end_RL is None
        order = mb.sample_index_M[np.argsort(mb.place_M)].tolist()
        for row in range(len(mb.token_ids_RL)):
            members = [
                i for i in dict.fromkeys(order) if i in mb.sample_index_M[rows_of(mb) == row]
            ]
            tokens = np.concatenate([np.zeros(0), *(made[i].token_ids for i in members)])
            positions = [np.arange(made[i].token_ids.size) for i in members]
            num_held += tokens.size
            padding = np.zeros(mb.token_ids_RL.shape[1] - tokens.size)
            np.testing.assert_array_equal(mb.token_ids_RL[row], [*tokens, *padding])
            np.testing.assert_array_equal(
                mb.position_ids_RL[row], np.concatenate([*positions, padding])
            )
            atoms = {index // options["group_of"] for index in members}
            assert tokens.size <= (how.row_tokens or how.microbatch_tokens) or len(atoms) == 1
    assert num_held == minibatch.num_tokens == minibatch.num_sample_tokens
    assert minibatch.shared_frac == 0


@settings(max_examples=150, deadline=None)
@given(case=cases(packs=(True, False)))
def test_the_loss_reads_each_sample_exactly_where_it_should(case):
    made, how, options = case
    minibatch = build_minibatch(made, how, **options)
    readout = options["readout"]
    num_tokens_read = num_scores_read = 0
    for mb in microbatches(minibatch):
        order = list(zip(mb.place_M.tolist(), mb.sample_index_M.tolist(), strict=True))
        assert order == sorted(set(order))
        assert (mb.target_ids_M[~mb.is_token_M] == 0).all()
        for index in set(mb.sample_index_M.tolist()):
            sample, of_M = made[index], mb.sample_index_M == index
            token_M, score_M = of_M & mb.is_token_M, of_M & ~mb.is_token_M
            num_tokens_read += token_M.sum()
            num_scores_read += score_M.sum()
            num_tokens, num_prompt = sample.token_ids.size, sample.num_prompt_tokens
            token_position_T = mb.position_ids_RL.flat[mb.place_M[token_M]].tolist()
            score_position_T = mb.position_ids_RL.flat[mb.place_M[score_M]].tolist()
            if readout == "last":
                assert token_position_T == []
            else:
                assert token_position_T == list(range(num_prompt - 1, num_tokens - 1))
                np.testing.assert_array_equal(
                    mb.target_ids_M[token_M], sample.token_ids[num_prompt:]
                )
            assert score_position_T == ([] if readout == "completion" else [num_tokens - 1])
            sampled = sample.rollout_logprobs if readout == "completion" else 0
            np.testing.assert_array_equal(mb.rollout_logprobs_M[token_M], sampled)
            assert (mb.rollout_logprobs_M[score_M] == 0).all()
            assert set(mb.advantages_M[of_M]) == {sample.advantage}
            for kind_M in (token_M, score_M):
                if kind_M.any():
                    assert mb.sequence_weight_M[kind_M].sum() == pytest.approx(1.0)
    assert num_scores_read == (0 if readout == "completion" else len(made))
    read = num_scores_read if readout == "last" else num_tokens_read
    assert read == minibatch.num_loss_tokens


@settings(max_examples=30, deadline=None)
@given(case=cases(packs=(True, False)))
def test_packing_is_deterministic(case):
    made, how, options = case
    for first, second in zip(
        arrays(build_minibatch(made, how, **options)),
        arrays(build_minibatch(made, how, **options)),
        strict=True,
    ):
        np.testing.assert_array_equal(first, second)


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_rounds_are_as_few_as_without_balancing(case):
    """Two neighbouring microbatches of any packing cannot both be half empty."""
    made, how, options = case
    minibatch = build_minibatch(made, replace(how, row_tokens=0), **options)
    num_rounds = len(minibatch.microbatches_by_rank[0])
    total = sum(sample.token_ids.size for sample in made)
    num_full = -(-2 * total // how.microbatch_tokens)  # first fit leaves one bin half empty
    assert num_rounds <= -(-max(1, num_full) // how.num_ranks)


def test_arrays_have_the_types_and_layout_that_types_states():
    made = [make_sample(2, 3), make_sample(1, 1, sample_idx=1, advantage=-2.0)]
    (mb,) = microbatches(build_minibatch(made, packing(8)))
    assert mb.token_ids_RL.tolist() == [[1, 2, 3, 4, 5, 101, 102]]
    assert mb.position_ids_RL.tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    assert mb.subtree_end_RL is None
    assert mb.place_M.tolist() == [1, 2, 3, 5]
    assert mb.is_token_M.all()
    assert mb.target_ids_M.tolist() == [3, 4, 5, 102]
    assert mb.advantages_M.tolist() == [0.5, 0.5, 0.5, -2]
    assert mb.rollout_logprobs_M.tolist() == [-1, -2, -3, -1]
    np.testing.assert_allclose(mb.sequence_weight_M, [1 / 3, 1 / 3, 1 / 3, 1])
    assert mb.sample_index_M.tolist() == [0, 0, 0, 1]
    for name in ("token_ids_RL", "position_ids_RL", "place_M", "target_ids_M", "sample_index_M"):
        assert getattr(mb, name).dtype == np.int32
    for name in ("advantages_M", "rollout_logprobs_M", "sequence_weight_M"):
        assert getattr(mb, name).dtype == np.float32
    assert mb.is_token_M.dtype == np.bool_


def test_rows_are_filled_first_fit_decreasing():
    made = [make_sample(1, n - 1, sample_idx=i) for i, n in enumerate((3, 6, 4, 7))]
    (mb,) = microbatches(build_minibatch(made, packing(100, 10)))
    by_row = [mb.sample_index_M[rows_of(mb) == row].tolist() for row in (0, 1)]
    assert [list(dict.fromkeys(row)) for row in by_row] == [[3, 0], [1, 2]]
    assert mb.token_ids_RL.shape == (2, 10)


def test_ranks_without_work_get_a_small_microbatch_that_has_no_label():
    minibatch = build_minibatch([make_sample(2, 3)], packing(64, num_ranks=3))
    assert [len(rank) for rank in minibatch.microbatches_by_rank] == [1, 1, 1]
    for (idle,) in minibatch.microbatches_by_rank[1:]:
        assert idle.token_ids_RL.shape == (1, 16)
        assert not idle.position_ids_RL.any()
        (real,) = minibatch.microbatches_by_rank[0]
        for field in fields(idle):
            if field.name.endswith("_M"):
                assert getattr(idle, field.name).size == 0
                assert getattr(idle, field.name).dtype == getattr(real, field.name).dtype


def test_work_is_spread_over_the_ranks_before_a_microbatch_is_full():
    made = [make_sample(4, 6, sample_idx=i) for i in range(8)]
    minibatch = build_minibatch(made, packing(1000, num_ranks=2))
    assert [[mb.token_ids_RL.size for mb in rank] for rank in minibatch.microbatches_by_rank] == [
        [40],
        [40],
    ]


def test_the_microbatches_of_a_round_are_about_equal():
    rng = np.random.default_rng(0)
    made = [make_sample(40, int(n), sample_idx=i) for i, n in enumerate(rng.integers(10, 90, 128))]
    minibatch = build_minibatch(made, packing(4096, 256, num_ranks=2))
    for round_ in zip(*minibatch.microbatches_by_rank, strict=True):
        sizes = [mb.token_ids_RL.size for mb in round_]
        assert min(sizes) > 0.9 * max(sizes)
    computed = sum(mb.token_ids_RL.size for mb in microbatches(minibatch))
    assert minibatch.num_tokens > 0.9 * computed


def test_microbatches_of_similar_size_meet_in_a_round():
    made = [make_sample(1, n - 1, sample_idx=i) for i, n in enumerate((60, 50, 50, 49, 49, 40))]
    first, second = build_minibatch(made, packing(100, 1, num_ranks=2)).microbatches_by_rank
    sizes = [(a.token_ids_RL.size, b.token_ids_RL.size) for a, b in zip(first, second, strict=True)]
    assert sizes == [(100, 98), (60, 40)]


def test_a_sample_longer_than_a_row_gets_a_row_of_its_own():
    made = [make_sample(5, 25), make_sample(2, 3, sample_idx=1)]
    rows = [
        sorted(set(mb.sample_index_M[rows_of(mb) == row].tolist()))
        for mb in microbatches(build_minibatch(made, packing(64, 8)))
        for row in range(len(mb.token_ids_RL))
    ]
    assert sorted(rows) == [[0], [1]]


@pytest.mark.parametrize("group_of", [1, 2])
def test_a_sample_longer_than_a_microbatch_is_refused_with_the_key_to_change(group_of):
    made = [make_sample(5, 60, prompt_id="minipy/7"), make_sample(5, 60, prompt_id="minipy/7")]
    with pytest.raises(UserError) as caught:
        build_minibatch(made, packing(64), group_of=group_of)
    for part in ("minipy/7", str(65 * group_of), "policy.microbatch_tokens=64"):
        assert part in str(caught.value)


def test_a_sample_that_fills_a_microbatch_exactly_is_accepted():
    (mb,) = microbatches(build_minibatch([make_sample(4, 60)], packing(64)))
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
        build_minibatch(made, packing(64), **options)


def test_rollout_logprobs_of_another_length_are_refused():
    sample = make_sample(2, 3, prompt_id="minipy/7")
    sample = Sample(
        **{name: getattr(sample, name) for name in Sample.__slots__ if name != "rollout_logprobs"},
        rollout_logprobs=np.zeros(4, np.float32),
    )
    with pytest.raises(
        ValueError, match="'minipy/7' has 3 completion tokens, but 4 rollout_logprobs"
    ):
        build_minibatch([sample], packing(64))


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


KERNELS = ["sdpa", "eager"]


@pytest.fixture(scope="module", params=KERNELS)
def rotary(request):
    """A model that turns positions into angles, in float32."""
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


@pytest.fixture(scope="module", params=KERNELS)
def exact(request):
    """A model that computes all in float64: two ways to the same number agree to 1e-10."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=64,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        attn_implementation=request.param,
        initializer_range=0.3,
    )
    return transformers.GPT2LMHeadModel(config).double().eval()


def read(model, mb):
    """What a language model says of the labels; a score is the logit of token 0."""
    additive = None
    if mb.subtree_end_RL is not None:
        length = mb.token_ids_RL.shape[1]
        query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
        seen_RLL = (key <= query) & (query < mb.subtree_end_RL[:, None, :])
        additive = torch.zeros(seen_RLL.shape, dtype=model.dtype)
        additive = additive.masked_fill(~seen_RLL, -1e30)[:, None]
    logits = model(
        input_ids=mb.token_ids_RL,
        position_ids=mb.position_ids_RL,
        attention_mask=additive,
        use_cache=False,
    ).logits
    logits_MV = logits.flatten(0, 1)[mb.place_M]
    logprobs_MV = logits_MV.log_softmax(-1)
    logprobs_M = logprobs_MV.gather(-1, mb.target_ids_M[:, None])[:, 0]
    entropy_M = -(logprobs_MV.exp() * logprobs_MV).sum(-1)
    zeros_M = torch.zeros_like(entropy_M)
    return Outputs(
        torch.where(mb.is_token_M, logprobs_M, logits_MV[:, 0]),
        torch.where(mb.is_token_M, entropy_M, zeros_M),
    )


def of_labels(mb, values):
    """Values [T] of each sample at its labels."""
    found_M = torch.zeros(mb.place_M.shape, dtype=torch.float64)
    for index in set(mb.sample_index_M.tolist()):
        found_M[mb.sample_index_M == index] = torch.tensor(values[index])
    return found_M


def figures_of(model, objective, minibatch, old=None, ref=None):
    """Loss, metrics and gradients of a minibatch, summed over its ranks and microbatches."""
    norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
    model.zero_grad()
    totals = {}
    for microbatch in microbatches(minibatch):
        mb = MicrobatchTensors.from_microbatch(microbatch, "cpu")
        old_M, ref_M = (None if values is None else of_labels(mb, values) for values in (old, ref))
        loss, metrics = objective(read(model, mb), mb, old_M, ref_M, norm)
        loss.backward()
        for name, value in {"loss": loss.detach(), **metrics}.items():
            totals[name] = totals.get(name, 0.0) + value.item()
    return totals, {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same_figures(found, expected):
    (figures, gradients), (expected_figures, expected_gradients) = found, expected
    assert figures == pytest.approx(expected_figures, abs=1e-10, rel=1e-10)
    assert any(gradient.abs().max() > 1e-3 for gradient in expected_gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected_gradients[name], rtol=1e-10, atol=1e-10, msg=name
        )


PACKINGS = [packing(256), packing(64, 20, num_ranks=3)]


@pytest.mark.parametrize("how", PACKINGS)
@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (PolicyObjective(kl_coef=0.1), {}),
        (PolicyObjective(aggregation="sequence_mean"), {}),
        (NllObjective(), {}),
        (PairObjective(centring=0.01), {"group_of": 2, "readout": "last"}),
    ],
)
def test_packing_changes_neither_loss_nor_metrics_nor_gradient(exact, objective, options, how):
    made = random_samples(10)
    rng = np.random.default_rng(2)
    ref = None
    if not options:
        ref = [s.rollout_logprobs + rng.normal(0, 0.3, s.rollout_logprobs.size) for s in made]
    packed = build_minibatch(made, how, **options)
    alone = build_minibatch(made, packing(40, 1), **options)  # a row for each sample (or pair)
    assert_same_figures(
        figures_of(exact, objective, packed, ref=ref), figures_of(exact, objective, alone, ref=ref)
    )


@pytest.mark.parametrize("share_prefix", ["on", "off"])
@pytest.mark.parametrize("how", PACKINGS)
def test_packed_logprobs_are_those_of_each_sample_alone(rotary, how, share_prefix):
    """Against the model called on one unpadded sequence, which knows nothing of packing."""
    made = group_samples(seed=1)
    minibatch = build_minibatch(made, replace(how, share_prefix=share_prefix))
    assert (minibatch.shared_frac > 0.2) == (share_prefix == "on")
    packed = microbatches(minibatch)
    with torch.no_grad():
        found = unpack(
            packed,
            [
                read(rotary, MicrobatchTensors.from_microbatch(mb, "cpu")).values_M.numpy()
                for mb in packed
            ],
        )
        for index, sample in enumerate(made):
            tokens = torch.tensor(sample.token_ids, dtype=torch.int64)
            alone = rotary(input_ids=tokens[None], use_cache=False).logits[0].log_softmax(-1)
            start = sample.num_prompt_tokens
            expected = alone[start - 1 : -1].gather(-1, tokens[start:, None])[:, 0]
            np.testing.assert_allclose(found[index], expected, rtol=2e-6, atol=5e-6)


# --- prefix trees ---------------------------------------------------------------------------------


def group_samples(sizes=(1, 3, 5, 8), seed=0):
    """Groups of unequal size; some completions are the same, or begin with another one."""
    rng = np.random.default_rng(seed)
    made = []
    for group, size in enumerate(sizes):
        prompt = rng.integers(1, 60, rng.integers(2, 8))
        stem = rng.integers(1, 60, 9)
        for member in range(size):
            own = rng.integers(1, 60, rng.integers(1, 6))
            completion = np.concatenate([stem[: rng.integers(0, 9)], own])
            if member in (2, 5):
                completion = made[-1].token_ids[prompt.size :]  # the same once more
            if member == 4:
                completion = made[-1].token_ids[prompt.size : -1]  # all but its end
            if not completion.size:
                completion = own
            made.append(
                Sample(
                    prompt_id=f"p{group}",
                    sample_idx=member,
                    token_ids=np.concatenate([prompt, completion]).astype(np.int32),
                    num_prompt_tokens=prompt.size,
                    rollout_logprobs=-rng.exponential(2, completion.size).astype(np.float32),
                    advantage=float(rng.normal()),
                    policy_version=0,
                )
            )
    return made


def spread_of(minibatch, made):
    """In how many microbatches the samples of each prompt stand."""
    homes = {}
    for number, mb in enumerate(microbatches(minibatch)):
        for index in set(mb.sample_index_M.tolist()):
            homes.setdefault(made[index].prompt_id, set()).add(number)
    return [len(numbers) for numbers in homes.values()]


@pytest.mark.parametrize("dense_mask", [True, False])
@pytest.mark.parametrize("how", [packing(512), packing(26), packing(30, 22, num_ranks=3)])
@pytest.mark.parametrize(
    "objective",
    [
        PolicyObjective(kl_coef=0.1, entropy_coef=0.05),
        PolicyObjective(kl_coef=0.1, entropy_coef=0.05, aggregation="sequence_mean"),
        PolicyObjective(kl_coef=0.2, kl_kind="k2", tis_cap=None, dual_clip=None),
        NllObjective(),
    ],
)
def test_trees_change_neither_loss_nor_metrics_nor_any_gradient(exact, objective, how, dense_mask):
    made = group_samples()
    rng = np.random.default_rng(5)
    old, ref = (
        [s.rollout_logprobs + rng.normal(0, 0.4, s.rollout_logprobs.size) for s in made]
        for _ in range(2)
    )
    how = replace(how, share_prefix="on", dense_mask=dense_mask)
    shared = build_minibatch(made, how)
    assert shared.shared_frac > 0.2
    if how.microbatch_tokens < 512:
        assert max(spread_of(shared, made)) > 1
    alone = build_minibatch(made, packing(24, 1))
    assert alone.shared_frac == 0
    assert_same_figures(
        figures_of(exact, objective, shared, old, ref),
        figures_of(exact, objective, alone, old, ref),
    )


def pair_samples(num_pairs, seed=0):
    """Pairs of sequences with a common start; the chosen one knows where its code begins."""
    rng = np.random.default_rng(seed)
    made = []
    for pair in range(num_pairs):
        prefix = rng.integers(1, 60, rng.integers(2, 9))
        for side in range(2):
            own = rng.integers(1, 60, rng.integers(2, 8))
            own[0] = 60 + side  # the first difference
            made.append(
                Sample(
                    prompt_id=f"p{pair // 2}",
                    sample_idx=side,
                    token_ids=np.concatenate([prefix, own]).astype(np.int32),
                    num_prompt_tokens=prefix.size - 1 if side == 0 else 0,
                    rollout_logprobs=np.zeros(0, np.float32),
                    advantage=0.0,
                    policy_version=0,
                )
            )
    return made


@pytest.mark.parametrize("readout", ["last", "last_and_lm"])
@pytest.mark.parametrize("how", [packing(256), packing(64, 24, num_ranks=2)])
@pytest.mark.parametrize("dense_mask", [True, False])
def test_pairs_in_trees_change_neither_loss_nor_metrics_nor_any_gradient(
    exact, how, readout, dense_mask
):
    made = pair_samples(7)
    objective = PairObjective(centring=0.01, lm_coef=0.25 if readout == "last_and_lm" else 0.0)
    options = {"group_of": 2, "readout": readout}
    how = replace(how, share_prefix="on", dense_mask=dense_mask)
    shared = build_minibatch(made, how, **options)
    assert shared.shared_frac > 0.2
    alone = build_minibatch(made, packing(64, 1), **options)
    assert_same_figures(figures_of(exact, objective, shared), figures_of(exact, objective, alone))


def test_a_place_where_samples_part_has_a_label_for_each_of_them():
    made = [
        replace(make_sample(2, size, sample_idx=idx), token_ids=np.array(ids, np.int32))
        for idx, (size, ids) in enumerate(
            [(3, (1, 2, 3, 4, 5)), (3, (1, 2, 3, 9, 9)), (1, (1, 2, 7))]
        )
    ]
    minibatch = build_minibatch(made, packing(64, share_prefix="on"))
    (mb,) = microbatches(minibatch)
    (tokens,) = mb.token_ids_RL.tolist()
    assert sorted(tokens) == [1, 2, 3, 4, 5, 7, 9, 9]
    assert minibatch.num_tokens == 8
    assert minibatch.num_sample_tokens == 13
    labels = list(
        zip(
            mb.place_M.tolist(),
            mb.sample_index_M.tolist(),
            mb.target_ids_M.tolist(),
            mb.rollout_logprobs_M.tolist(),
            strict=True,
        )
    )
    two, three = tokens.index(2), tokens.index(3)
    assert [label[1:] for label in labels if label[0] == two] == [
        (0, 3, -1),
        (1, 3, -1),
        (2, 7, -1),
    ]
    assert [label[1:] for label in labels if label[0] == three] == [(0, 4, -2), (1, 9, -2)]
    assert len(labels) == minibatch.num_loss_tokens == 7


def test_a_shared_prefix_is_held_once():
    made = pair_samples(6)
    made = [replace(sample, prompt_id=f"p{i // 2}") for i, sample in enumerate(made)]
    how = packing(256, share_prefix="on")
    minibatch = build_minibatch(made, how, group_of=2, readout="last")
    whole = sum(sample.token_ids.size for sample in made)
    saved = sum(
        num_common(one.token_ids, two.token_ids)
        for one, two in zip(made[::2], made[1::2], strict=True)
    )
    assert minibatch.num_sample_tokens == whole
    assert minibatch.num_tokens == whole - saved < whole
    assert minibatch.shared_frac == pytest.approx(saved / whole)
    assert shared_frac(made, group_of=2) == pytest.approx(saved / whole)
    (mb,) = microbatches(minibatch)
    assert mb.token_ids_RL.size == minibatch.num_tokens


def test_equal_sequences_are_one_path_that_is_read_twice():
    made = [make_sample(3, 2, sample_idx=0)] * 2
    minibatch = build_minibatch(made, packing(64, share_prefix="on"), group_of=2, readout="last")
    (mb,) = microbatches(minibatch)
    assert mb.token_ids_RL.tolist() == [[1, 2, 3, 4, 5]]
    assert mb.place_M.tolist() == [4, 4]
    assert mb.sample_index_M.tolist() == [0, 1]


def test_samples_of_two_prompts_share_nothing_however_they_begin():
    made = [make_sample(5, 2, prompt_id=name) for name in "ab"]
    minibatch = build_minibatch(made, packing(64, share_prefix="on"))
    assert minibatch.num_tokens == 14
    assert all(mb.subtree_end_RL is None for mb in microbatches(minibatch))


def test_the_regulariser_reads_the_chosen_code_alone():
    made = pair_samples(3)
    minibatch = build_minibatch(made, packing(256), group_of=2, readout="last_and_lm")
    chosen = made[0::2]
    num_code = sum(sample.token_ids.size - sample.num_prompt_tokens for sample in chosen)
    assert minibatch.num_loss_tokens == num_code
    for mb in microbatches(minibatch):
        assert set((mb.sample_index_M[mb.is_token_M] % 2).tolist()) == {0}
        for index in range(0, len(made), 2):
            target_T = mb.target_ids_M[mb.is_token_M & (mb.sample_index_M == index)]
            code_T = made[index].token_ids[made[index].num_prompt_tokens :]
            np.testing.assert_array_equal(target_T, code_T)


def alike(num_shared, num_own=20, num=2):
    """Completions of one prompt that begin with the same tokens and go on with others."""
    return [
        replace(
            make_sample(num_shared, num_own, sample_idx=index),
            token_ids=np.concatenate(
                [np.arange(1, num_shared + 1), 100 * (index + 1) + np.arange(num_own)]
            ).astype(np.int32),
        )
        for index in range(num)
    ]


@pytest.mark.parametrize(
    ("share_prefix", "num_shared", "expected"),
    [
        ("auto", 4, False),  # 4 of 48 tokens
        ("auto", 6, True),  # 6 of 52
        ("on", 1, True),
        ("off", 20, False),
    ],
)
def test_auto_shares_where_a_tenth_of_the_tokens_is_saved(share_prefix, num_shared, expected):
    made = alike(num_shared)
    how = packing(256, share_prefix=share_prefix)
    minibatch = build_minibatch(made, how)
    total = 2 * (num_shared + 20)
    assert minibatch.shared_frac == pytest.approx(num_shared / total if expected else 0)
    assert any(mb.subtree_end_RL is not None for mb in microbatches(minibatch)) == expected
    assert shares(how, num_shared / total) == expected
    assert not shares(replace(how, packs=False), num_shared / total)


def test_with_a_dense_mask_no_tree_is_longer_than_a_row_or_twice_its_longest_sample():
    made = alike(10, num=12)  # a tree over all of them has 250 tokens
    for row_tokens, dense_mask, most in [(0, True, 60), (100, True, 100), (0, False, 300)]:
        how = packing(300, row_tokens, share_prefix="on", dense_mask=dense_mask)
        minibatch = build_minibatch(made, how)
        trees = [
            length
            for mb in microbatches(minibatch)
            for length in np.diff(
                [*np.flatnonzero((mb.position_ids_RL == 0).flat), mb.token_ids_RL.size]
            )
        ]
        assert minibatch.shared_frac > 0.1
        assert max(trees) <= most
        assert (len(trees) == 1) == (not dense_mask)


# --- one sample per row ---------------------------------------------------------------------------


def test_without_packing_every_sample_has_a_row_of_its_own_from_position_0():
    samples = [
        make_sample(2, size - 2, prompt_id=str(i)) for i, size in enumerate((9, 3, 14, 5, 7))
    ]
    minibatch = build_minibatch(samples, packing(40, num_ranks=2, packs=False))
    seen: list[int] = []
    for mb in microbatches(minibatch):
        assert mb.token_ids_RL.size <= 40
        assert mb.subtree_end_RL is None
        for row, position_L in enumerate(mb.position_ids_RL):
            members = set(mb.sample_index_M[rows_of(mb) == row].tolist())
            if not members:  # idle
                continue
            (index,) = members
            seen.append(index)
            size = samples[index].token_ids.size
            np.testing.assert_array_equal(mb.token_ids_RL[row, :size], samples[index].token_ids)
            np.testing.assert_array_equal(position_L[:size], np.arange(size))
            assert not position_L[size:].any()
    assert sorted(seen) == list(range(5))
    assert minibatch.num_loss_tokens == sum(s.token_ids.size - 2 for s in samples)


def test_without_packing_a_pair_shares_a_microbatch_but_no_row_and_no_prefix():
    samples = [
        make_sample(2, size - 2, prompt_id=str(i // 2))
        for i, size in enumerate((9, 3, 14, 5, 7, 8))
    ]
    how = packing(30, share_prefix="on", packs=False)
    minibatch = build_minibatch(samples, how, group_of=2, readout="last")
    homes: dict[int, int] = {}
    for number, mb in enumerate(minibatch.microbatches_by_rank[0]):
        assert mb.subtree_end_RL is None
        assert sorted(set(rows_of(mb))) == list(range(len(mb.token_ids_RL)))
        assert mb.place_M.size == len(mb.token_ids_RL)
        for index, place in zip(mb.sample_index_M.tolist(), mb.place_M.tolist(), strict=True):
            homes[index] = number
            row, columns = seen_by(mb, place)
            np.testing.assert_array_equal(mb.token_ids_RL[row, columns], samples[index].token_ids)
    assert sorted(homes) == list(range(6))
    assert all(homes[i] == homes[i + 1] for i in range(0, 6, 2))
    assert minibatch.shared_frac == 0


def test_without_packing_ranks_take_equally_many_microbatches():
    samples = [make_sample(2, 8, prompt_id=str(i)) for i in range(7)]
    minibatch = build_minibatch(samples, packing(20, num_ranks=3, packs=False))
    assert len({len(rank) for rank in minibatch.microbatches_by_rank}) == 1


def with_supports(made):
    """Samples with what each of their tokens was sampled among, of another width each."""
    rng = np.random.default_rng(7)
    result = []
    for width, sample in enumerate(made, start=1):
        targets = sample.token_ids[sample.num_prompt_tokens :]
        support_TK = rng.integers(100, 200, (targets.size, width)).astype(np.int32)
        support_TK[:, 0] = targets
        result.append(replace(sample, support_TK=support_TK))
    return result


@pytest.mark.parametrize("how", [packing(512), packing(40, 30, num_ranks=3)])
@pytest.mark.parametrize("share_prefix", ["on", "off"])
def test_every_label_keeps_the_support_of_its_token(how, share_prefix):
    made = with_supports(group_samples())
    minibatch = build_minibatch(made, replace(how, share_prefix=share_prefix))
    for mb in microbatches(minibatch):
        if not len(mb.place_M):
            assert mb.support_MK is None
            continue
        assert mb.support_MK is not None
        np.testing.assert_array_equal(mb.support_MK[:, 0], mb.target_ids_M)
        for index in np.unique(mb.sample_index_M):
            own = mb.support_MK[mb.sample_index_M == index]
            support_TK = made[index].support_TK
            width = support_TK.shape[1]
            np.testing.assert_array_equal(own[:, :width], support_TK)
            assert (own[:, width:] == -1).all()


def test_samples_with_and_without_a_support_are_refused():
    made = group_samples()
    mixed = [*with_supports(made[:1]), *made[1:]]
    with pytest.raises(ValueError, match="with and without recorded tokens"):
        build_minibatch(mixed, packing(512))


@pytest.mark.parametrize("share_prefix", ["on", "off"])
def test_tokens_without_loss_are_context_and_count_in_no_denominator(share_prefix):
    samples = [make_sample(3, 4), make_sample(3, 5, sample_idx=1)]
    read = np.array([True, False, False, True])
    masked = [replace(samples[0], loss_mask=read), samples[1]]
    how = packing(64, 32, share_prefix=share_prefix)
    minibatch, whole = (build_minibatch(made, how) for made in (masked, samples))
    assert (minibatch.num_loss_tokens, whole.num_loss_tokens) == (7, 9)
    (mb,), (full,) = microbatches(minibatch), microbatches(whole)
    assert np.array_equal(mb.token_ids_RL, full.token_ids_RL)  # every token is seen
    of_first = mb.sample_index_M == 0
    assert mb.target_ids_M[of_first].tolist() == samples[0].token_ids[3:][read].tolist()
    assert mb.rollout_logprobs_M[of_first].tolist() == [-1.0, -4.0]
    assert mb.sequence_weight_M[of_first].tolist() == [0.5, 0.5]
    assert (~of_first).sum() == 5


def test_a_mask_that_hides_nothing_changes_nothing():
    samples = [make_sample(3, 4, sample_idx=index) for index in range(3)]
    masked = [replace(sample, loss_mask=np.ones(4, np.bool_)) for sample in samples]
    plain, same = (build_minibatch(made, packing(64, 32)) for made in (samples, masked))
    assert plain.num_loss_tokens == same.num_loss_tokens
    for one, other in zip(arrays(plain), arrays(same), strict=True):
        assert np.array_equal(one, other)
