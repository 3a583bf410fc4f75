"""ZeRO-3 on two ranks against plain single-process PyTorch, one sample at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from actors.engines.deepspeed_engine import TrainEngine
from actors.engines.specs import TrainSpec
from actors.engines.train_model import lr_at
from conf.errors import NonFiniteError, SaveError, UserError
from conf.schema import PolicyConfig
from rl.loss import (
    LossDenominators,
    MicrobatchTensors,
    NllObjective,
    Outputs,
    PairObjective,
    PolicyObjective,
)
from rl.packing import Packing, build_minibatch
from rl.parcels import Minibatch, unpack
from rl.problems.tiny_model import make_tokenizer
from rl.types import FloatArray, Microbatch, Sample
from tests.system.forks import free_port, run_ranks

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

NUM_RANKS = 2
NUM_UPDATES = 3
TEMPERATURE = 0.7
KL_COEF = 0.1
OBJECTIVE = PolicyObjective(
    clip_eps_low=0.2, clip_eps_high=0.28, dual_clip=None, kl_coef=KL_COEF, tis_cap=None
)
# Float32 gradients of sums taken in another order (packed rows, two ranks) differ by 1e-7 of their
# size. Adam divides by their magnitude, so a weight may move by lr * 1e-7 * (norm / |gradient|)
# otherwise; three updates of lr = 1e-3 move weights by up to 3e-3, 300 times this tolerance.
TOLERANCE = 1e-5


def make_samples(num: int) -> list[Sample]:
    """Both samples of a prompt begin with it, and go on with the same tokens for a while."""
    rng = np.random.default_rng(3)
    samples: list[Sample] = []
    for index in range(num):
        num_tokens, num_prompt = int(rng.integers(20, 61)), int(rng.integers(3, 15))
        token_ids = rng.integers(3, 300, num_tokens).astype(np.int32)
        if index % 2:
            before = samples[-1]
            num_prompt = before.num_prompt_tokens
            token_ids[: num_prompt + 5] = before.token_ids[: num_prompt + 5]
        samples.append(
            Sample(
                prompt_id=f"p{index // 2}",
                sample_idx=index % 2,
                token_ids=token_ids,
                num_prompt_tokens=num_prompt,
                rollout_logprobs=np.full(num_tokens - num_prompt, -5.0, np.float32),
                advantage=float(rng.normal()),
                policy_version=0,
            )
        )
    return samples


SAMPLES = make_samples(14)
PACKING = Packing(num_ranks=NUM_RANKS, microbatch_tokens=112, row_tokens=64)
TREES = replace(PACKING, share_prefix="on")
# Seven microbatches for two ranks: four each, unequal in labels, the last one of padding.
MINIBATCH = build_minibatch(SAMPLES, TREES, group_of=2)  # no tree is split to fill the last one
PLAIN = build_minibatch(SAMPLES, PACKING)
PAIRS = build_minibatch(SAMPLES, TREES, group_of=2, readout="last")


def norm_of(minibatch: Minibatch) -> LossDenominators:
    return LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)


POLICY = PolicyConfig(
    lr=1e-3,
    warmup_steps=2,
    lr_schedule="cosine",
    weight_decay=0.1,
    grad_clip=0.05,
    microbatch_tokens=256,
    deadline_s=120,
)


def make_spec(model_path: Path, policy: PolicyConfig = POLICY, **changes: Any) -> TrainSpec:
    base = TrainSpec(
        model_path=str(model_path), policy=policy, total_steps=10, temperature=TEMPERATURE
    )
    return replace(base, **changes)


@dataclass(frozen=True)
class InfiniteGradient:
    """A loss of 0 whose gradient is not finite."""

    def __call__(
        self,
        outputs: Outputs,
        mb: MicrobatchTensors,
        old_M: Tensor | None,
        ref_M: Tensor | None,
        norm: LossDenominators,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return (outputs.values_M.sum() * 0).sqrt(), {}


def with_bad_advantage(microbatches: Sequence[Microbatch], sample: int) -> list[Microbatch]:
    return [
        replace(
            mb,
            advantages_M=np.where(mb.sample_index_M == sample, np.nan, mb.advantages_M).astype(
                np.float32
            ),
        )
        for mb in microbatches
    ]


def weights_of(engine: TrainEngine) -> dict[str, Tensor]:
    buckets = list[list[tuple[str, Tensor]]]()
    for bucket in engine.iter_full_parameters(bucket_bytes=40_000):
        buckets.append([(name, tensor.clone()) for name, tensor in bucket])
    assert len(buckets) > 2  # the bound on the bucket is in force
    return {name: tensor for bucket in buckets for name, tensor in bucket}


def message_of(error: type[Exception], action: Callable[[], object]) -> str:
    with pytest.raises(error) as info:
        action()
    return str(info.value)


def run_policy(rank: int, directory: Path, port: int) -> dict[str, Any]:
    """Three updates; then the third again, from a checkpoint, after two updates that must fail."""
    spec = make_spec(directory / "tied", with_reference=True)
    batch, norm = MINIBATCH.microbatches_by_rank[rank], norm_of(MINIBATCH)
    result: dict[str, Any] = {}

    engine = TrainEngine(spec, rank, NUM_RANKS, "127.0.0.1", port)
    old: tuple[FloatArray, ...] | None = engine.outputs(batch)
    result["logprobs"] = old
    result["metadata"] = engine.parameter_metadata()
    result["initial"] = weights_of(engine)
    reports = [engine.update(batch, None, OBJECTIVE, norm)]
    reports.append(engine.update(batch, old, OBJECTIVE, norm))
    for name in ("rank0", "rank1", "scripts"):
        result[f"full_{name}"] = message_of(
            SaveError, partial(engine.save_checkpoint, directory / "full" / name)
        )
    result["full_hf"] = message_of(SaveError, lambda: engine.save_hf(directory / "full/hf"))
    engine.save_checkpoint(directory / "checkpoint")
    reports.append(engine.update(batch, old, OBJECTIVE, norm))
    result["reports"] = reports
    result["weights"] = weights_of(engine)
    result["partition"] = engine.partition_report()
    engine.save_hf(directory / "exports" / "policy")
    result["logprobs_after"] = engine.outputs(batch)
    engine.close()

    engine = TrainEngine(spec, rank, NUM_RANKS, "127.0.0.1", port)
    engine.load_checkpoint(directory / "checkpoint")
    result["bad_gradient"] = message_of(
        NonFiniteError, lambda: engine.update(batch, old, InfiniteGradient(), norm)
    )
    result["bad_loss"] = message_of(
        NonFiniteError,
        lambda: engine.update(with_bad_advantage(batch, 5), old, OBJECTIVE, norm),
    )
    result["resumed_report"] = engine.update(batch, old, OBJECTIVE, norm)
    result["resumed"] = weights_of(engine)
    result["no_checkpoint"] = message_of(
        UserError, lambda: engine.load_checkpoint(directory / "exports")
    )
    engine.close()
    return result


def run_untied(rank: int, directory: Path, port: int) -> dict[str, Any]:
    spec = make_spec(
        directory / "untied", replace(POLICY, gradient_checkpointing=True), temperature=1.0
    )
    engine = TrainEngine(spec, rank, NUM_RANKS, "127.0.0.1", port)
    batch, norm = PLAIN.microbatches_by_rank[rank], norm_of(PLAIN)
    reports = [engine.update(batch, None, NllObjective(), norm) for _ in range(NUM_UPDATES)]
    result = {"reports": reports, "weights": weights_of(engine)}
    engine.close()
    return result


def run_score(rank: int, directory: Path, port: int) -> dict[str, Any]:
    spec = make_spec(directory / "tied", head="score")
    engine = TrainEngine(spec, rank, NUM_RANKS, "127.0.0.1", port)
    result: dict[str, Any] = {"initial": weights_of(engine)}
    batch, norm = PAIRS.microbatches_by_rank[rank], norm_of(PAIRS)
    objective = PairObjective(centring=0.01)
    result["reports"] = [engine.update(batch, None, objective, norm) for _ in range(NUM_UPDATES)]
    result["weights"] = weights_of(engine)
    result["scores"] = engine.outputs(batch)
    engine.save_hf(directory / "exports" / "rm")
    engine.close()
    return result


def run_bfloat16(rank: int, directory: Path, port: int) -> dict[str, Any]:
    spec = make_spec(directory / "tied", dtype="bfloat16")
    engine = TrainEngine(spec, rank, NUM_RANKS, "127.0.0.1", port)
    batch, norm = MINIBATCH.microbatches_by_rank[rank], norm_of(MINIBATCH)
    result: dict[str, Any] = {
        "logprobs": engine.outputs(batch),
        "buffers": {name: b.clone() for name, b in engine._engine.module.model.named_buffers()},
        "metadata": engine.parameter_metadata(),
        "reports": [engine.update(batch, None, NllObjective(), norm) for _ in range(NUM_UPDATES)],
    }
    engine.close()
    return result


def worker(rank: int, directory: Path, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=NUM_RANKS
    )
    scenarios = {
        "policy": run_policy,
        "untied": run_untied,
        "score": run_score,
        "bfloat16": run_bfloat16,
    }
    results = {name: scenario(rank, directory, port) for name, scenario in scenarios.items()}
    torch.save(results, directory / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Directory and results by rank of one spawn of two real ranks."""
    directory = tmp_path_factory.mktemp("engine")
    for name in ("tied", "untied"):
        make_model(directory / name, tied=name == "tied")
    make_full(directory / "full")
    run_ranks(worker, NUM_RANKS, directory, free_port())
    results = [
        torch.load(directory / f"rank{rank}.pt", weights_only=False) for rank in range(NUM_RANKS)
    ]
    return directory, results


def make_model(directory: Path, *, tied: bool = True, seed: int = 1) -> None:
    """A random policy of two layers, with its tokenizer."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        tie_word_embeddings=tied,
        attention_dropout=0.3,  # off in the engine: results would differ from run to run
        dtype="float32",
    )
    Qwen3ForCausalLM(config).save_pretrained(directory)
    tokenizer = make_tokenizer(["def f(xs):\n    return sum(xs)"], vocab_size=300)
    tokenizer.save_pretrained(directory)


def make_full(directory: Path) -> None:
    """Directories in which some files of a checkpoint or a model find no room."""
    for rank in range(NUM_RANKS):
        zero = directory / f"rank{rank}/zero3"
        zero.mkdir(parents=True)
        for kind in ("model", "optim"):
            (zero / f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt").symlink_to("/dev/full")
    for name, file in (("hf", "model.safetensors.index.json"), ("scripts", "zero_to_fp32.py")):
        (directory / name).mkdir()
        (directory / name / file).symlink_to("/dev/full")


def plain_logprobs(model: nn.Module, sample: Sample, temperature: float) -> Tensor:
    """Log-probs [T] of the completion, of one sample alone."""
    token_ids = torch.tensor(sample.token_ids[None], dtype=torch.int64)
    logits = model(input_ids=token_ids, use_cache=False).logits[0, :-1] / temperature
    logprobs = logits.log_softmax(-1).gather(-1, token_ids[0, 1:, None]).squeeze(-1)
    return logprobs[sample.num_prompt_tokens - 1 :]


def plain_training(
    model: nn.Module, loss_of: Callable[[int], Tensor]
) -> tuple[list[float], list[float]]:
    """Plain AdamW with gradient clipping; returns losses and gradient norms of the updates."""
    spec = make_spec(Path("any"))
    optimizer = torch.optim.AdamW(
        model.parameters(),
        betas=(POLICY.adam_beta1, POLICY.adam_beta2),
        weight_decay=POLICY.weight_decay,
    )
    losses: list[float] = []
    norms: list[float] = []
    for step in range(NUM_UPDATES):
        optimizer.zero_grad()
        loss = loss_of(step)
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), POLICY.grad_clip)))
        optimizer.param_groups[0]["lr"] = lr_at(step, POLICY, spec.total_steps)
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def assert_same_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    assert set(parameters) <= set(weights)
    for name, parameter in parameters.items():
        torch.testing.assert_close(weights[name], parameter.detach(), atol=TOLERANCE, rtol=0)


def test_the_minibatches_hold_several_microbatches_per_rank_and_an_idle_one():
    for minibatch in (MINIBATCH, PLAIN, PAIRS):
        by_rank = [[mb.place_M.size for mb in batch] for batch in minibatch.microbatches_by_rank]
        assert [len(counts) for counts in by_rank] == [4, 4]
        assert by_rank[0][-1] > by_rank[1][-1] == 0
        assert (minibatch.shared_frac > 0.05) == (minibatch is not PLAIN)


def test_packed_updates_on_two_ranks_equal_plain_torch_one_sample_at_a_time(run):
    directory, results = run
    model = AutoModelForCausalLM.from_pretrained(directory / "tied").eval()
    with torch.no_grad():
        old = [plain_logprobs(model, sample, TEMPERATURE) for sample in SAMPLES]

    def loss_of(step: int) -> Tensor:
        total = torch.zeros(())
        for sample, old_T in zip(SAMPLES, old, strict=True):
            logprobs_T = plain_logprobs(model, sample, TEMPERATURE)
            before_T = logprobs_T.detach() if step == 0 else old_T
            ratio_T = (logprobs_T - before_T).exp()
            surrogate_T = torch.minimum(
                ratio_T * sample.advantage, ratio_T.clamp(0.8, 1.28) * sample.advantage
            )
            gap_T = old_T - logprobs_T  # the reference is the initial policy
            total = total + (KL_COEF * (gap_T.exp() - 1 - gap_T) - surrogate_T).sum()
        return total / MINIBATCH.num_loss_tokens

    losses, norms = plain_training(model, loss_of)

    reports = results[0]["policy"]["reports"]
    assert [r.metrics["policy/loss"] for r in reports] == pytest.approx(losses, abs=1e-6)
    assert [r.metrics["policy/grad_norm"] for r in reports] == pytest.approx(norms, rel=1e-4)
    assert min(norms) > POLICY.grad_clip  # so clipping is part of this test
    assert_same_weights(model, results[0]["policy"]["weights"])


def test_logprobs_equal_plain_torch(run):
    directory, results = run
    model = AutoModelForCausalLM.from_pretrained(directory / "tied").eval()
    with torch.no_grad():
        expected = [plain_logprobs(model, sample, TEMPERATURE).numpy() for sample in SAMPLES]
    found: dict[int, FloatArray] = {}
    for rank, batch in enumerate(MINIBATCH.microbatches_by_rank):
        found |= unpack(batch, results[rank]["policy"]["logprobs"])
    assert sorted(found) == list(range(len(SAMPLES)))
    for index, logprobs_T in found.items():
        np.testing.assert_allclose(logprobs_T, expected[index], atol=1e-5)


def test_reports_are_the_same_on_both_ranks(run):
    _, results = run
    for scenario in ("policy", "untied", "score"):
        assert results[0][scenario]["reports"] == results[1][scenario]["reports"]


def test_the_reference_stays_the_initial_policy(run):
    _, results = run
    kls = [report.metrics["policy/ref_kl"] for report in results[0]["policy"]["reports"]]
    assert kls[0] == pytest.approx(0, abs=1e-7)
    assert 1e-6 < kls[1] < kls[2]


def test_parameters_are_partitioned_over_the_ranks(run):
    _, results = run
    reports = [result["policy"]["partition"] for result in results]
    shapes = {name: shape for name, _, shape in results[0]["policy"]["metadata"]}
    del shapes["lm_head.weight"]  # the embeddings under their second name
    full = sum(math.prod(shape) for shape in shapes.values())
    for report in reports:
        assert report["full"] == full
        assert full / NUM_RANKS <= report["local"] <= full / NUM_RANKS * 1.01
        assert 0 < report["replicated"] < 0.02 * full


def test_tied_embeddings_are_yielded_as_the_head_too(run):
    _, results = run
    weights = results[0]["policy"]["weights"]
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])


def test_metadata_names_types_and_shapes_in_the_order_of_the_parameters(run):
    _, results = run
    for result in results:
        weights = result["policy"]["initial"]
        assert result["policy"]["metadata"] == [
            (name, "float32", tuple(tensor.shape)) for name, tensor in weights.items()
        ]


def test_every_rank_gathers_the_same_parameters(run):
    _, results = run
    for name, tensor in results[0]["policy"]["weights"].items():
        assert torch.equal(tensor, results[1]["policy"]["weights"][name])


def test_untied_model_with_gradient_checkpointing_equals_plain_torch(run):
    directory, results = run
    model = AutoModelForCausalLM.from_pretrained(directory / "untied").eval()

    def loss_of(step: int) -> Tensor:
        total = torch.stack([plain_logprobs(model, sample, 1.0).sum() for sample in SAMPLES]).sum()
        return -total / MINIBATCH.num_loss_tokens

    losses, _ = plain_training(model, loss_of)
    reports = results[0]["untied"]["reports"]
    assert [r.metrics["warm/loss"] for r in reports] == pytest.approx(losses, abs=1e-5)
    assert_same_weights(model, results[0]["untied"]["weights"])
    weights = results[0]["untied"]["weights"]
    assert not torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])


def plain_score(model: nn.Module, sample: Sample) -> Tensor:
    token_ids = torch.tensor(sample.token_ids[None], dtype=torch.int64)
    return model(input_ids=token_ids, use_cache=False).logits[0, 0]


def test_score_head_on_pairs_equals_plain_torch(run):
    directory, results = run
    model = AutoModelForSequenceClassification.from_pretrained(
        directory / "tied", num_labels=1
    ).eval()
    # The checkpoint has no score head: start from the one that the engine made.
    model.load_state_dict(results[0]["score"]["initial"])

    def loss_of(step: int) -> Tensor:
        scores_N = torch.stack([plain_score(model, sample) for sample in SAMPLES])
        chosen, rejected = scores_N[0::2], scores_N[1::2]
        loss = nn.functional.softplus(rejected - chosen) + 0.01 * (chosen + rejected) ** 2
        return loss.mean()

    _, norms = plain_training(model, loss_of)
    reports = results[0]["score"]["reports"]
    assert [r.metrics["policy/grad_norm"] for r in reports] == pytest.approx(norms, rel=1e-4)
    assert_same_weights(model, results[0]["score"]["weights"])


def test_resumed_training_gives_the_very_same_weights(run):
    _, results = run
    for result in results:
        policy = result["policy"]
        assert policy["resumed_report"] == policy["reports"][-1]
        for name, tensor in policy["weights"].items():
            assert torch.equal(policy["resumed"][name], tensor), name


def test_a_disk_that_is_full_is_said_by_every_rank_and_changes_nothing(run):
    _, results = run
    # The updates that follow are compared with plain torch above.
    for result in (found["policy"] for found in results):
        for rank in range(NUM_RANKS):
            assert f"(rank {rank})" in result[f"full_rank{rank}"]
            assert f"(rank {1 - rank})" not in result[f"full_rank{rank}"]
        for name in ("hf", "scripts"):  # which rank 0 writes
            assert f"full/{name} cannot be written: " in result[f"full_{name}"]
            assert "(rank 0)" in result[f"full_{name}"]


def test_updates_move_the_weights(run):
    _, results = run
    policy = results[0]["policy"]
    for name, tensor in policy["weights"].items():
        assert not torch.equal(policy["initial"][name], tensor), name


def test_non_finite_loss_is_refused_on_every_rank_and_names_the_sample(run):
    # That it leaves no trace is part of `test_resumed_training_gives_the_very_same_weights`.
    _, results = run
    for result in results:
        assert "loss is NaN or infinite in optimizer step 2" in result["policy"]["bad_loss"]
        assert "such numbers: [5]" in result["policy"]["bad_loss"]


def test_non_finite_gradient_is_refused_on_every_rank(run):
    _, results = run
    for result in results:
        assert "gradient norm is NaN or infinite" in result["policy"]["bad_gradient"]


def test_a_directory_without_a_checkpoint_is_refused(run):
    _, results = run
    assert "engine.json is missing" in results[0]["policy"]["no_checkpoint"]


def test_exported_policy_loads_with_from_pretrained_and_equals_the_engine(run):
    directory, results = run
    export = directory / "exports" / "policy"
    model = AutoModelForCausalLM.from_pretrained(export, use_safetensors=True)
    parameters = dict(model.named_parameters())
    assert all(torch.equal(results[0]["policy"]["weights"][k], v) for k, v in parameters.items())
    assert model.config.attention_dropout == 0.3  # the architecture's own, not the engine's
    text = "def f(xs): return max(xs)"
    before, after = (AutoTokenizer.from_pretrained(p) for p in (directory / "tied", export))
    assert before(text).input_ids == after(text).input_ids
    assert before.chat_template == after.chat_template
    assert [p.name for p in (directory / "exports").iterdir() if p.name.startswith(".")] == []


def test_exported_reward_model_scores_as_the_engine_did(run):
    directory, results = run
    model = AutoModelForSequenceClassification.from_pretrained(
        directory / "exports" / "rm", use_safetensors=True
    ).eval()
    assert model.config.num_labels == 1
    assert model.config.pad_token_id is not None
    for rank, batch in enumerate(PAIRS.microbatches_by_rank):
        for index, (score,) in unpack(batch, results[rank]["score"]["scores"]).items():
            with torch.no_grad():
                expected = plain_score(model, SAMPLES[index]).item()
            assert score == pytest.approx(expected, abs=1e-5)


def test_bfloat16_keeps_rotary_frequencies_in_float32(run):
    directory, results = run
    model = AutoModelForCausalLM.from_pretrained(directory / "tied", dtype=torch.bfloat16)
    expected = dict(model.named_buffers())
    assert expected.keys() == results[0]["bfloat16"]["buffers"].keys()
    for name, buffer in results[0]["bfloat16"]["buffers"].items():
        assert buffer.dtype == torch.float32
        assert torch.equal(buffer, expected[name])


def test_bfloat16_follows_float32_within_its_precision(run):
    _, results = run
    assert {dtype for _, dtype, _ in results[0]["bfloat16"]["metadata"]} == {"bfloat16"}
    for result in results:
        for half_M, full_M in zip(
            result["bfloat16"]["logprobs"], result["policy"]["logprobs"], strict=True
        ):
            np.testing.assert_allclose(half_M, full_M, atol=0.05)
    losses = [report.metrics["warm/loss"] for report in results[0]["bfloat16"]["reports"]]
    assert losses[0] > losses[1] > losses[2]


def test_learning_rate_warms_up_then_follows_the_cosine_to_zero():
    policy = replace(POLICY, lr=1.0, warmup_steps=4)
    rates = [lr_at(step, policy, total_steps=12) for step in range(14)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[8] == pytest.approx(0.5)
    assert rates[12:] == pytest.approx([0.0, 0.0])
    assert lr_at(10**6, replace(POLICY, lr_schedule="constant"), total_steps=10) == 1e-3
