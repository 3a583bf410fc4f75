"""Parts `head` and `kernels`: ways to compute one thing, beside each other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from actors.engines.heads import LogprobHead
from actors.engines.train_model import TrainModel
from conf.schema import Attention
from launch.gpu.parts import C_COMPILER, Bench, finds
from launch.gpu.shapes import (
    SMALL,
    dimensions,
    random_model,
    record_memory,
    samples,
    timed,
    trained,
)
from rl.loss import LossDenominators, MicrobatchTensors, NllObjective
from rl.packing import Packing, build_minibatch
from rl.parcels import Minibatch
from rl.types import Sample

# Relative: of the loss, and of the norm of the gradient's difference. In float32 only the order of
# sums differs; in bfloat16 each of the layers rounds to three digits.
LOSS_BOUND = {"float32": 1e-5, "bfloat16": 2e-3}
GRADIENT_BOUND = {"float32": 1e-4, "bfloat16": 0.05}
_VALUE_BOUND = {"float32": 1e-4, "bfloat16": 0.02}  # of a log-prob, nats

Layout = Literal["a row each", "packed", "tree"]


def measure_head(bench: Bench) -> None:
    """Log-probs and gradients of our head beside those of whole logits."""
    dims = dimensions(bench, SMALL)
    places = 64 if bench.is_rehearsal else 8192
    dtype = getattr(torch, bench.dtype)
    torch.manual_seed(0)
    made = {"device": bench.device, "dtype": dtype}
    weight_VH = torch.nn.Parameter(torch.randn(dims.vocab, dims.hidden, **made) * 0.02)
    hidden_PH = torch.randn(places, dims.hidden, **made, requires_grad=True)
    target_P = torch.randint(dims.vocab, (places,), device=bench.device)
    place_P = torch.arange(places, device=bench.device)
    few = dims.vocab * 16 if bench.is_rehearsal else 2**26  # several chunks, here too
    head = LogprobHead(weight_VH, 1.0, few)

    def chunked() -> Tensor:
        return head(hidden_PH, place_P, target_P).values_M

    def whole() -> Tensor:
        logits = (hidden_PH @ weight_VH.T).float()
        return logits.log_softmax(dim=-1).gather(-1, target_P[:, None])[:, 0]

    def both(logprobs: Callable[[], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        weight_VH.grad = hidden_PH.grad = None
        values_P = logprobs()
        values_P.mean().backward()
        assert weight_VH.grad is not None and hidden_PH.grad is not None
        return values_P.detach(), weight_VH.grad, hidden_PH.grad

    ours, theirs = both(chunked), both(whole)
    bound = GRADIENT_BOUND[bench.dtype]
    gap = float((ours[0] - theirs[0]).abs().max())
    bench.record("log-probs, largest difference", gap, "nats", most=_VALUE_BOUND[bench.dtype])
    bench.record("gradient of the weights", distance(ours[1:2], theirs[1:2]), most=bound)
    bench.record("gradient of the hidden states", distance(ours[2:], theirs[2:]), most=bound)
    for name, logprobs in (("in chunks", chunked), ("whole logits", whole)):
        seconds, peak = timed(bench, lambda made=logprobs: both(made))
        bench.record(f"{name}: forward and backward", 1000 * seconds, "ms")
        record_memory(bench, f"{name}: ", peak)


def measure_kernels(bench: Bench) -> None:
    """Each kernel and layout beside SDPA in float32 with a row for each sample."""
    dims = dimensions(bench, SMALL)
    short, size = (24, 16) if bench.is_rehearsal else (512, 512)
    work = samples(dims, groups=4, size=2, prompt=short, completion=size)
    model = trained(bench, random_model(bench, dims))
    exact = copy.deepcopy(model).float()  # of the same weights, rounded as they are
    wanted = gradients(bench, exact, _laid_out(work, "a row each", "sdpa"))
    del exact
    variants: list[tuple[Attention, Layout]] = [
        ("sdpa", "a row each"),
        ("sdpa", "packed"),
        ("sdpa", "tree"),
        ("flash_attention_2", "a row each"),
        ("flash_attention_2", "packed"),
        ("flex_attention", "packed"),
        ("flex_attention", "tree"),
    ]
    for attention, layout in variants:
        name = f"{attention}, {layout}"
        if why := absent(bench, attention):
            bench.record.skip(name, why)
            continue
        model.model.set_attn_implementation(attention)
        minibatch = _laid_out(work, layout, attention)
        compare(bench, name, gradients(bench, model, minibatch), wanted)
        seconds, peak = timed(bench, lambda made=minibatch: gradients(bench, model, made))
        bench.record(f"{name}: speed", minibatch.num_sample_tokens / seconds, "tokens/s")
        record_memory(bench, f"{name}: ", peak)


def compare(
    bench: Bench, name: str, found: tuple[float, list[Tensor]], wanted: tuple[float, list[Tensor]]
) -> None:
    """Record how far loss and gradient are from those that are wanted."""
    loss = abs(found[0] - wanted[0]) / abs(wanted[0])
    bench.record(f"{name}: loss", loss, "relative", most=LOSS_BOUND[bench.dtype])
    bound = GRADIENT_BOUND[bench.dtype]
    bench.record(f"{name}: gradient", distance(found[1], wanted[1]), "relative", most=bound)


def gradients(bench: Bench, model: TrainModel, minibatch: Minibatch) -> tuple[float, list[Tensor]]:
    """Loss, and the gradient of every parameter on the host, of one pass over a minibatch."""
    model.zero_grad(set_to_none=True)
    norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
    total = 0.0
    for microbatch in minibatch.microbatches_by_rank[0]:
        mb = MicrobatchTensors.from_microbatch(microbatch, bench.device)
        loss, _ = NllObjective()(model(mb), mb, None, None, norm)
        loss.backward()
        total += float(loss.detach())
    return total, [p.grad for p in model.parameters() if p.grad is not None]


def distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Norm of the difference, as a share of the norm of what is wanted."""
    pairs = list(zip(found, wanted, strict=True))
    apart = sum(float((a.float() - b.float()).square().sum()) for a, b in pairs)
    return (apart / sum(float(b.float().square().sum()) for _, b in pairs)) ** 0.5


def packing(budget: int, attention: Attention, layout: Layout) -> Packing:
    """Microbatches of at most `budget` tokens, laid out in one of the ways."""
    return Packing(
        num_ranks=1,
        microbatch_tokens=budget,
        share_prefix="on" if layout == "tree" else "off",
        dense_mask=attention != "flex_attention",
        packs=layout != "a row each",
    )


def _laid_out(work: Sequence[Sample], layout: Layout, attention: Attention) -> Minibatch:
    total = sum(sample.token_ids.size for sample in work)
    return build_minibatch(work, packing(total // 2, attention, layout))


def absent(bench: Bench, attention: Attention) -> str:
    """Why a kernel cannot be used here; empty when it can."""
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        return "not installed: flash_attn"
    if bench.is_rehearsal and attention != "sdpa":
        return "trains on a GPU only"
    if attention == "flex_attention" and not finds(C_COMPILER):
        return f"not found: {C_COMPILER}, which compiles it"
    return ""
