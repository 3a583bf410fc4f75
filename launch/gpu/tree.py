"""Part `prefix_tree`: sixteen completions of one long prompt, as a tree and as rows."""

from __future__ import annotations

from torch import Tensor

from conf.schema import Attention
from launch.gpu.kernels import Layout, absent, compare, gradients, packing
from launch.gpu.parts import Bench
from launch.gpu.shapes import (
    SMALL,
    dimensions,
    random_model,
    record_memory,
    samples,
    timed,
    trained,
)
from rl.packing import build_minibatch

_COMPLETIONS = 16


def measure(bench: Bench) -> None:
    """Forward and backward of all of them; the microbatch holds the whole tree, or four rows."""
    dims = dimensions(bench, SMALL)
    prompt, completion = (64, 16) if bench.is_rehearsal else (4096, 1024)
    work = samples(dims, groups=1, size=_COMPLETIONS, prompt=prompt, completion=completion)
    model = trained(bench, random_model(bench, dims))
    budget = prompt + _COMPLETIONS * completion
    variants: list[tuple[str, Attention, Layout]] = [
        ("rows, SDPA", "sdpa", "a row each"),
        ("tree, SDPA with a dense mask", "sdpa", "tree"),
        ("tree, FlexAttention", "flex_attention", "tree"),
    ]
    rows: tuple[float, list[Tensor]] | None = None
    rows_s = 0.0
    for name, attention, layout in variants:
        if why := absent(bench, attention):
            bench.record.skip(name, why)
            continue
        model.model.set_attn_implementation(attention)
        minibatch = build_minibatch(work, packing(budget, attention, layout))
        seconds, peak = timed(bench, lambda made=minibatch: gradients(bench, model, made))
        bench.record(f"{name}: tokens computed", minibatch.num_tokens)
        bench.record(f"{name}: forward and backward", seconds, "s")
        bench.record(f"{name}: speed", minibatch.num_sample_tokens / seconds, "tokens/s")
        record_memory(bench, f"{name}: ", peak)
        found = gradients(bench, model, minibatch)
        if rows is None:
            rows, rows_s = (found[0], [grad.clone() for grad in found[1]]), seconds
            continue
        compare(bench, f"{name}, beside rows", found, rows)
        bench.record(f"{name}: time of the rows over its own", rows_s / seconds, "x")
