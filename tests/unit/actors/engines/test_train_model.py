"""The model that is trained reads its heads from wherever the checkpoint lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from actors.engines import train_model
from actors.engines.heads import LogprobHead
from actors.engines.specs import TrainSpec
from actors.engines.train_model import (
    TrainModel,
    additive_mask,
    block_mask,
    load_model,
    save_config_and_tokenizer,
)
from conf.errors import UserError
from conf.schema import Attention, PolicyConfig
from reward.model.golden import GOLDEN_SCORES, read_golden_scores
from reward.model.read_out import choose_padding
from reward.model.text_path import TextPath
from reward.train.pair_batches import write_golden_scores
from rl.loss import LossDenominators, MicrobatchTensors, Objective, PairObjective, PolicyObjective
from rl.packing import Packing, build_minibatch
from rl.parcels import Readout, unpack
from rl.problems.tiny_model import make_policy
from rl.types import FloatArray, Sample
from tests.unit.tokenizer_kinds import KINDS, write_classifier

pytestmark = pytest.mark.unit

POLICY = PolicyConfig(lr=1e-3, microbatch_tokens=256)

HUB_ID = "someone/tiny"


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory of a model with an LM head of its own, as the hub's cache keeps it."""
    cache = tmp_path / "models--someone--tiny"
    snapshot = cache / "snapshots" / "0123"
    make_policy(snapshot, ["def f(x): return x"], seed=0, tied=False)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return snapshot


def spec(model: str) -> TrainSpec:
    return TrainSpec(model_path=model, head="score_lm", policy=POLICY, total_steps=1)


@pytest.mark.parametrize("by_hub_id", [True, False])
def test_the_lm_regulariser_reads_the_head_of_the_checkpoint(fetched: Path, by_hub_id: bool):
    found = load_model(spec(HUB_ID if by_hub_id else str(fetched)))
    wanted = AutoModelForCausalLM.from_pretrained(fetched, dtype=torch.float32).lm_head.weight
    assert found.lm_head is not None
    assert torch.equal(found.lm_head.weight, wanted)


def test_a_checkpoint_without_an_lm_head_is_refused_by_name(fetched: Path, tmp_path: Path):
    classifier = AutoModelForSequenceClassification.from_pretrained(fetched, num_labels=1)
    classifier.save_pretrained(tmp_path / "rm")
    with pytest.raises(UserError, match=r"rm holds no lm_head\.weight.*set lm_coef=0"):
        load_model(spec(str(tmp_path / "rm")))


def test_what_is_saved_pads_and_asks_as_the_training_did(fetched: Path, tmp_path: Path):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    made = TrainSpec(
        model_path=str(fetched),
        head="score",
        policy=POLICY,
        total_steps=1,
        chat_template=template,
        pad_token_id=1,
    )
    target = tmp_path / "saved"
    save_config_and_tokenizer(load_model(made).model, made, target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert AutoConfig.from_pretrained(target).pad_token_id == tokenizer.pad_token_id == 1
    assert tokenizer.chat_template == template


def test_a_base_without_padding_whose_texts_end_with_its_end_token_is_read_right(tmp_path: Path):
    base, target = tmp_path / "base", tmp_path / "rm"
    tokenizer = write_classifier(KINDS["mistral"], base)
    assert tokenizer.pad_token_id is None
    path = TextPath.load(str(base), "sequence_classifier", 512, reads_last=True)
    ids = path.encode("Add.", "x = 1").token_ids.tolist()
    assert ids[-1] == tokenizer.eos_token_id
    pad = choose_padding(path.tokenizer, path.last_ids(), None, "model")
    made = TrainSpec(
        model_path=str(base), head="score", policy=POLICY, total_steps=1, pad_token_id=pad
    )
    trained = load_model(made).model
    trained.save_pretrained(target)
    save_config_and_tokenizer(trained, made, target)
    written = TextPath.load(str(target), "sequence_classifier", 512)
    assert written.encode("Add.", "x = 1").token_ids.tolist() == ids
    probes = [("Add.", "x = 1"), ("Return the sum of the numbers.", "def f(xs): return sum(xs)")]
    write_golden_scores(target, written, probes)  # alone and as a padded batch, or it raises
    score = read_golden_scores(target / GOLDEN_SCORES)[0].score
    with torch.no_grad():
        hidden = trained.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
        assert score == pytest.approx(float(trained.get_submodule("score")(hidden)), abs=1e-5)


# --- heads ----------------------------------------------------------------------------------------

# Places 2, 3, 5, 6 and 9 of ten, two of them with several labels; one target is asked for twice.
PLACE_M = torch.tensor([2, 2, 2, 3, 5, 5, 6, 9])
TARGET_M = torch.tensor([4, 1, 4, 0, 10, 3, 7, 2])


def head_inputs(num_tokens: int = 11) -> tuple[torch.Tensor, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    hidden_PH = torch.randn(10, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(num_tokens, 5, dtype=torch.float64, generator=generator)
    return hidden_PH, torch.nn.Parameter(weight)


# Five places are one chunk, several unequal ones, or one each.
CHUNKS = [2**26, 2 * 11, 3 * 11 + 5, 1]


@pytest.mark.parametrize("chunk_logits", CHUNKS)
def test_values_and_entropies_are_those_of_log_softmax(chunk_logits: int):
    hidden_PH, weight = head_inputs()
    found = LogprobHead(weight, 0.7, chunk_logits)(hidden_PH, PLACE_M, TARGET_M)
    logprobs_MV = (hidden_PH @ weight.T / 0.7).log_softmax(-1)[PLACE_M]
    values_M = logprobs_MV.gather(-1, TARGET_M[:, None])[:, 0]
    entropy_M = torch.distributions.Categorical(logits=logprobs_MV).entropy()
    torch.testing.assert_close(found.values_M, values_M, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.entropy_M, entropy_M, rtol=1e-12, atol=1e-12)
    weights_M = torch.linspace(-1, 2, 8, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad((weights_M * v + weights_M.square() * h).sum(), [hidden_PH, weight])
        for v, h in (found, (values_M, entropy_M))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk_logits", CHUNKS)
def test_gradients_of_values_and_entropies_are_finite_differences(chunk_logits: int):
    hidden_PH, weight = head_inputs()

    def read(hidden_PH: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        head = LogprobHead(weight, 0.7, chunk_logits)  # pyright: ignore[reportArgumentType]  # a copy
        return tuple(head(hidden_PH, PLACE_M, TARGET_M))

    for only in (slice(0, 2), slice(0, 1), slice(1, 2)):  # autograd asks for both, or for one
        assert torch.autograd.gradcheck(
            lambda h, w, only=only: read(h, w)[only], (hidden_PH, weight)
        )


# Tokens that each target was sampled among; the target is one of them, -1 fills up.
SUPPORT_MK = torch.tensor(
    [
        [4, 1, 9],
        [1, -1, -1],  # the only one
        [7, 4, -1],
        [0, 2, 3],
        [10, 9, 8],
        [3, 10, -1],
        [1, 2, 7],
        [2, 0, -1],
    ]
)


@pytest.mark.parametrize("chunk_logits", [2**26, 2 * 15, 1])
def test_probabilities_are_those_among_the_support(chunk_logits: int):
    hidden_PH, weight = head_inputs()
    found = LogprobHead(weight, 0.7, chunk_logits)(hidden_PH, PLACE_M, TARGET_M, SUPPORT_MK)
    logits_MV = (hidden_PH @ weight.T / 0.7)[PLACE_M]
    values, entropies = [], []
    for logits_V, target, support_K in zip(logits_MV, TARGET_M, SUPPORT_MK, strict=True):
        logprobs = logits_V[support_K[support_K >= 0]].log_softmax(-1)
        values.append(logits_V[target] - logits_V[support_K[support_K >= 0]].logsumexp(-1))
        entropies.append(-(logprobs.exp() * logprobs).sum())
    expected = torch.stack(values), torch.stack(entropies)
    torch.testing.assert_close(tuple(found), expected, rtol=1e-12, atol=1e-12)
    weights_M = torch.linspace(-1, 2, 8, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad((weights_M * v + weights_M.square() * h).sum(), [hidden_PH, weight])
        for v, h in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_gradients_among_the_support_are_finite_differences_for_each_output():
    hidden_PH, weight = head_inputs()

    def read(hidden_PH: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        head = LogprobHead(weight, 0.7, 30)  # pyright: ignore[reportArgumentType]  # a copy
        return tuple(head(hidden_PH, PLACE_M, TARGET_M, SUPPORT_MK))

    for only in (slice(0, 2), slice(0, 1), slice(1, 2)):
        assert torch.autograd.gradcheck(
            lambda h, w, only=only: read(h, w)[only], (hidden_PH, weight)
        )


def test_a_support_of_all_tokens_is_none():
    hidden_PH, weight = head_inputs()
    head = LogprobHead(weight, 0.7)
    everything_MK = torch.arange(11).repeat(len(PLACE_M), 1)
    torch.testing.assert_close(
        tuple(head(hidden_PH, PLACE_M, TARGET_M, everything_MK)),
        tuple(head(hidden_PH, PLACE_M, TARGET_M)),
        rtol=1e-12,
        atol=1e-12,
    )


def test_a_head_without_labels_has_a_gradient_of_zero():
    hidden_PH, weight = head_inputs()
    nothing = torch.zeros(0, dtype=torch.int64)
    found = LogprobHead(weight, 1.0)(hidden_PH, nothing, nothing)
    assert found.values_M.shape == found.entropy_M.shape == (0,)
    gradients = torch.autograd.grad(
        found.values_M.sum() + found.entropy_M.sum(), [hidden_PH, weight]
    )
    assert all(gradient.abs().max() == 0 for gradient in gradients)


def test_a_frozen_head_gets_no_gradient_and_passes_on_the_same():
    for support_MK in (None, SUPPORT_MK):
        hidden_PH, weight = head_inputs()

        def gradient(head: LogprobHead, hidden: torch.Tensor = hidden_PH) -> torch.Tensor:
            values_M, entropy_M = head(hidden, PLACE_M, TARGET_M, support_MK)  # noqa: B023
            (of_hidden,) = torch.autograd.grad((values_M + entropy_M).sum(), [hidden])
            return of_hidden

        trained = gradient(LogprobHead(weight, 0.7))
        frozen = LogprobHead(torch.nn.Parameter(weight.detach(), requires_grad=False), 0.7)
        assert torch.equal(gradient(frozen), trained)
        assert frozen.weight.grad is None


# --- masks of trees -------------------------------------------------------------------------------

# A tree of 5 columns (0 and 1 are shared, 2 and 3, 4 are branches), a sample of 2, and padding.
ENDS = torch.tensor([[5, 5, 4, 4, 5, 7, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8]])
SEEN = [
    ["0", "01", "012", "0123", "014", "5", "56", "7"],
    list("01234567"),
]


def test_masks_show_a_token_its_own_beginning_and_nothing_else():
    mask = additive_mask(ENDS, torch.float32)
    sees: Any = block_mask(ENDS).mask_mod
    assert mask.shape == (2, 1, 8, 8)
    for row, rows in enumerate(SEEN):
        for column, seen in enumerate(rows):
            expected = torch.tensor([str(other) in seen for other in range(8)])
            assert torch.equal(mask[row, 0, column] == 0, expected)
            assert (mask[row, 0, column][~expected] == torch.finfo(torch.float32).min).all()
            at = [torch.tensor(row), torch.tensor(0), torch.tensor(column)]
            found = [bool(sees(*at, torch.tensor(other))) for other in range(8)]
            assert found == expected.tolist()


def grouped(with_code: bool) -> list[Sample]:
    """Two groups of four whose completions begin alike; or only chosen ones have code."""
    rng = np.random.default_rng(0)
    made: list[Sample] = []
    for index in range(8):
        base = np.random.default_rng(index // 4).integers(1, 60, 12)
        ids = np.concatenate([base[: rng.integers(6, 12)], rng.integers(1, 60, rng.integers(2, 6))])
        num_prompt = 0 if with_code and index % 2 else 5
        made.append(
            Sample(
                prompt_id=f"p{index // 4}",
                sample_idx=index,
                token_ids=ids.astype(np.int32),
                num_prompt_tokens=num_prompt,
                rollout_logprobs=-rng.exponential(2, ids.size - 5).astype(np.float32),
                advantage=float(rng.normal()),
                policy_version=0,
            )
        )
    return made


def tiny(scores: bool, kernel: str) -> PreTrainedModel:
    """A model that computes all in float64."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3
    )
    config._attn_implementation = kernel
    config.num_labels, config.pad_token_id = 1, 0
    return (GPT2ForSequenceClassification if scores else GPT2LMHeadModel)(config).double().eval()


def figures(
    model: TrainModel,
    samples: list[Sample],
    packing: Packing,
    objective: Objective,
    readout: Readout,
) -> tuple[dict[int, FloatArray], torch.Tensor, dict[str, torch.Tensor]]:
    """Values of each sample, the loss, and gradients."""
    minibatch = build_minibatch(samples, packing, group_of=2, readout=readout)
    norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
    model.zero_grad()
    packed = [mb for rank in minibatch.microbatches_by_rank for mb in rank]
    total, values = torch.zeros((), dtype=torch.float64), list[FloatArray]()
    for microbatch in packed:
        mb = MicrobatchTensors.from_microbatch(microbatch, "cpu")
        outputs = model(mb)
        values.append(outputs.values_M.detach().numpy())
        loss, _ = objective(outputs, mb, None, None, norm)
        loss.backward()
        total += loss.detach()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return unpack(packed, values), total, gradients


def test_flex_attention_is_compiled_for_more_kinds_of_rows_than_torch_would():
    """One row or several of one token, of up to a block, of more: six kinds without a gradient."""
    import torch._dynamo  # noqa: PLC0415 - seconds

    limit = torch._dynamo.config.recompile_limit
    cases: dict[Attention, int] = {"sdpa": limit, "flex_attention": 64}
    for attention, allowed in cases.items():
        with torch._dynamo.config.patch(recompile_limit=limit):
            train_model._allow_recompiling(attention)
            assert torch._dynamo.config.recompile_limit == allowed >= limit


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("head", "readout", "objective"),
    [
        ("lm", "completion", PolicyObjective(entropy_coef=0.1)),
        ("score", "last", PairObjective(centring=0.01)),
        ("score_lm", "last_and_lm", PairObjective(centring=0.01, lm_coef=0.25)),
    ],
)
def test_what_is_trained_is_the_same_with_shared_prefixes(
    kernel: str, head: str, readout: Readout, objective: Objective
):
    made = TrainSpec(model_path="none", head=head, policy=POLICY, total_steps=1, temperature=0.8)  # pyright: ignore[reportArgumentType]
    model = TrainModel(tiny(head != "lm", kernel), made)
    samples = grouped(with_code=head == "score_lm")
    alone = Packing(num_ranks=1, microbatch_tokens=40, row_tokens=1)
    shared = replace(alone, num_ranks=2, microbatch_tokens=64, row_tokens=40, share_prefix="on")
    assert build_minibatch(samples, shared, group_of=2, readout=readout).shared_frac > 0.2
    values, loss, gradients = figures(model, samples, shared, objective, readout)
    wanted = figures(model, samples, alone, objective, readout)
    assert values.keys() == wanted[0].keys() == set(range(8))
    for index, values_T in values.items():
        np.testing.assert_allclose(values_T, wanted[0][index], rtol=0, atol=1e-10)
    torch.testing.assert_close(loss, wanted[1], rtol=1e-10, atol=1e-10)
    assert len(gradients) > 20
    torch.testing.assert_close(gradients, wanted[2], rtol=1e-10, atol=1e-10)
