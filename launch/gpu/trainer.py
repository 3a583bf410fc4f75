"""Parts `trainer_*`: updates of one ZeRO-3 rank, beside a plain backward pass of the same model."""

from __future__ import annotations

import socket
import time

import torch

from actors.engines.specs import TrainSpec
from launch.gpu.kernels import gradients
from launch.gpu.machine import matrix_rate
from launch.gpu.parts import Bench
from launch.gpu.shapes import (
    LARGE,
    SMALL,
    dimensions,
    policy,
    random_model,
    record_memory,
    samples,
    synchronise,
    train_flops,
    trained,
    write_model,
)
from rl.loss import LossDenominators, NllObjective
from rl.packing import Packing, build_minibatch
from rl.parcels import Minibatch

_GIB = 2**30
# ZeRO-3 sums gradients in float32, a plain backward pass in the dtype of the weights.
_NORM_BOUND = {"float32": 1e-4, "bfloat16": 0.02}
_LOSS_BOUND = {"float32": 1e-5, "bfloat16": 2e-3}


def measure_small(bench: Bench) -> None:
    """The smaller shape."""
    _measure(bench, SMALL, offload=False)


def measure_large(bench: Bench) -> None:
    """The larger shape."""
    _measure(bench, LARGE, offload=False)


def measure_offload(bench: Bench) -> None:
    """The smaller shape, with the optimizer's state in host memory."""
    if bench.is_rehearsal:
        bench.record.skip("offload", "a CPU has no other memory")
        return
    _measure(bench, SMALL, offload=True)


def _measure(bench: Bench, model: str, *, offload: bool) -> None:
    dims = dimensions(bench, model)
    prompt, completion, budget = (24, 16, 160) if bench.is_rehearsal else (512, 1536, 16_384)
    work = samples(dims, groups=4, size=4, prompt=prompt, completion=completion)
    minibatch = build_minibatch(work, Packing(num_ranks=1, microbatch_tokens=budget, packs=False))
    plain = trained(bench, random_model(bench, dims))
    loss, grads = gradients(bench, plain, minibatch)
    norm = sum(float(grad.float().square().sum()) for grad in grads) ** 0.5
    del plain, grads
    directory = write_model(bench, "model", dims)
    rate = matrix_rate(bench)
    if bench.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    spec = TrainSpec(
        model_path=str(directory),
        dtype=bench.dtype,
        device=bench.device,
        policy=policy(tokens=budget, offload_optimizer=offload),
        total_steps=10,
    )
    first, seconds = _updates(bench, spec, minibatch)
    loss_gap, norm_gap = abs(first[0] - loss) / abs(loss), abs(first[1] - norm) / norm
    bench.record("loss beside plain torch", loss_gap, "relative", most=_LOSS_BOUND[bench.dtype])
    bench.record("gradient norm", norm_gap, "relative", most=_NORM_BOUND[bench.dtype])
    bench.record("an update", seconds, "s")
    tokens = minibatch.num_tokens
    bench.record("speed", tokens / seconds, "tokens/s")
    flops = train_flops(dims, tokens, (prompt + completion) / 2)
    bench.record("MFU, of the measured matrix product", flops / seconds / rate)
    if bench.device == "cuda":
        record_memory(bench, "", torch.cuda.max_memory_allocated() / _GIB)


def _updates(
    bench: Bench, spec: TrainSpec, minibatch: Minibatch
) -> tuple[tuple[float, float], float]:
    """Loss and gradient norm of the first update, and the median seconds of those after it."""
    from actors.engines.deepspeed_engine import TrainEngine  # noqa: PLC0415 - a part of its own

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started_s = time.perf_counter()
    engine = TrainEngine(spec, 0, 1, "127.0.0.1", port)
    bench.record("start", time.perf_counter() - started_s, "s")
    norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
    first: tuple[float, float] | None = None
    found: list[float] = []
    try:
        for _ in range(4):
            synchronise(bench)
            started_s = time.perf_counter()
            report = engine.update(minibatch.microbatches_by_rank[0], None, NllObjective(), norm)
            synchronise(bench)
            found.append(time.perf_counter() - started_s)
            first = first or (report.metrics["warm/loss"], report.metrics["policy/grad_norm"])
    finally:
        engine.close()
    assert first is not None
    return first, sorted(found[1:])[1]
