"""Models with random weights at given shapes, and samples of given lengths.

The weights do not matter for what is measured: kernels take the same time, and two ways to compute
one number agree or do not. Nothing is fetched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from actors.engines.specs import TrainSpec
from actors.engines.train_model import TrainModel
from actors.plan.layout.model_shape import Dimensions, shape_of
from conf.schema import Attention, PolicyConfig
from launch.gpu.parts import Bench
from rl.types import Sample

TOKENIZER = Path(__file__).resolve().parents[2] / "assets/minipy/policy"
SMALL, LARGE = "Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B"
_TINY = Dimensions(
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=32,  # the least that vLLM has on a CPU
    intermediate=128,
    vocab=1024,
    tied=True,
)
_FIRST_TOKEN = 10  # the ones below are special
_GIB = 2**30


def dimensions(bench: Bench, model: str) -> Dimensions:
    """The shape of a published model; in a rehearsal a tiny one."""
    shape = shape_of(model, scores=False)
    if bench.is_rehearsal or shape is None or shape.dimensions is None:
        return _TINY
    return shape.dimensions


def config_of(dims: Dimensions) -> PreTrainedConfig:
    """A Qwen3 of that shape, with the special tokens of the tokenizer that stands beside it."""
    tokenizer: Any = AutoTokenizer.from_pretrained(TOKENIZER)
    return AutoConfig.for_model(
        "qwen3",
        vocab_size=dims.vocab,
        hidden_size=dims.hidden,
        intermediate_size=dims.intermediate,
        num_hidden_layers=dims.layers,
        num_attention_heads=dims.heads,
        num_key_value_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        max_position_embeddings=8192,
        tie_word_embeddings=dims.tied,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def random_model(
    bench: Bench, dims: Dimensions, *, scores: bool = False, dtype: str | None = None
) -> PreTrainedModel:
    """A model on the device; the same weights each time."""
    config = config_of(dims)
    auto: Any = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    if scores:
        config.num_labels = 1
    torch.manual_seed(0)
    with torch.device(bench.device):
        return auto.from_config(config, dtype=getattr(torch, dtype or bench.dtype))


def write_model(bench: Bench, name: str, dims: Dimensions, *, scores: bool = False) -> Path:
    """A directory with such a model and a tokenizer."""
    directory = bench.folder / name
    random_model(bench, dims, scores=scores).save_pretrained(directory)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(directory)
    return directory


def policy(attention: Attention = "sdpa", *, tokens: int = 1024, **changes: Any) -> PolicyConfig:  # noqa: ANN401 - fields
    """Settings of a rank that trains."""
    return PolicyConfig(
        lr=1e-5,
        microbatch_tokens=tokens,
        attention=attention,
        gradient_checkpointing=True,
        **changes,
    )


def trained(bench: Bench, model: PreTrainedModel) -> TrainModel:
    """The model with the head and the forward of a rank, ready for a backward pass."""
    spec = TrainSpec(
        model_path="", dtype=bench.dtype, device=bench.device, policy=policy(), total_steps=1
    )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return TrainModel(model, spec).train()


def samples(dims: Dimensions, groups: int, size: int, prompt: int, completion: int) -> list[Sample]:
    """Groups of samples that begin with the same prompt."""
    rng = np.random.default_rng(0)

    def tokens(count: int) -> Any:  # noqa: ANN401 - an array
        return rng.integers(_FIRST_TOKEN, dims.vocab, count).astype(np.int32)

    prompts = [tokens(prompt) for _ in range(groups)]
    return [
        Sample(
            prompt_id=f"p{group}",
            sample_idx=index,
            token_ids=np.concatenate([prompts[group], tokens(completion)]),
            num_prompt_tokens=prompt,
            rollout_logprobs=np.full(completion, -np.log(dims.vocab), np.float32),
            advantage=float(rng.normal()),
            policy_version=0,
        )
        for group in range(groups)
        for index in range(size)
    ]


def train_flops(dims: Dimensions, num_tokens: int, context: float) -> float:
    """Operations of a forward and a backward pass, without what checkpoints compute again.

    Six for each weight and token, and twelve for each number of the queries, token of the context
    (the mean one, which is half of a sequence) and layer.

    >>> from actors.plan.layout.model_shape import Dimensions
    >>> dims = Dimensions(layers=1, hidden=2, heads=1, kv_heads=1, head_dim=2, intermediate=4,
    ...                   vocab=8, tied=True)
    >>> train_flops(dims, 10, 0.0) == 60 * dims.num_parameters()
    True
    """
    attention = 12 * dims.layers * dims.q_width * context
    return num_tokens * (6 * dims.num_parameters() + attention)


def timed(bench: Bench, work: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """Median seconds of `work` after a first call, and the largest memory of the device, GiB."""
    work()
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found: list[float] = []
    for _ in range(1 if bench.is_rehearsal else repeats):
        synchronise(bench)
        started_s = time.perf_counter()
        work()
        synchronise(bench)
        found.append(time.perf_counter() - started_s)
    peak = torch.cuda.max_memory_allocated() / _GIB if bench.device == "cuda" else 0.0
    return sorted(found)[len(found) // 2], peak


def synchronise(bench: Bench) -> None:
    """Wait for the device."""
    if bench.device == "cuda":
        torch.cuda.synchronize()


def record_memory(bench: Bench, what: str, peak_gib: float) -> None:
    """Record the largest memory of the device; a CPU does not say."""
    if bench.device == "cuda":
        bench.record(f"{what}peak memory", peak_gib, "GiB")
