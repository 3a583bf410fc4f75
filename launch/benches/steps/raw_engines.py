"""The engines without the pipeline: vLLM and DeepSpeed in processes of their own, called directly.

What they take for the requests of a step is the floor of that step. Each runs in a spawned process
that keeps its engine between calls.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from actors.engines.specs import EngineSpec, TrainSpec
from rl.loss import LossDenominators, Objective
from rl.types import IntArray, Microbatch

if TYPE_CHECKING:
    from actors.engines.deepspeed_engine import TrainEngine

_held: dict[str, Any] = {}  # the engine of this process

Request = tuple[list[int], dict[str, Any]]  # token ids of a prompt, sampling parameters of vLLM


def _process(threads: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(threads,),
    )


def _prepare(threads: int) -> None:
    os.environ |= {
        "OMP_NUM_THREADS": str(threads),
        "DS_ACCELERATOR": "cpu",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }


class RawVllm:
    """One vLLM engine; `generate` or `classify`, whichever its runner says."""

    def __init__(self, spec: EngineSpec) -> None:
        self._pool = _process(spec.cpu_threads)
        self._pool.submit(_build_vllm, spec).result()

    def generate(self, requests: Sequence[Request]) -> int:
        """Sample all requests at once; the number of tokens."""
        return self._pool.submit(_generate, requests).result()

    def classify(self, rows: Sequence[IntArray]) -> int:
        """Score all rows at once; the number of scores."""
        return self._pool.submit(_classify, rows).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(cancel_futures=True)


def _build_vllm(spec: EngineSpec) -> None:
    from actors.engines.vllm_engine import build_engine  # noqa: PLC0415 - never in the parent

    _held["engine"] = build_engine(spec, None)


def _generate(requests: Sequence[Request]) -> int:
    from vllm import SamplingParams  # noqa: PLC0415 - never in the parent
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

    for number, (token_ids, params) in enumerate(requests):
        sampling = SamplingParams(**params, output_kind=RequestOutputKind.FINAL_ONLY)
        _held["engine"].add_request(str(number), {"prompt_token_ids": token_ids}, sampling)
    return sum(len(one.token_ids) for output in _finish() for one in output.outputs)


def _classify(rows: Sequence[IntArray]) -> int:
    from vllm import PoolingParams  # noqa: PLC0415 - never in the parent

    params = PoolingParams(task="classify", use_activation=False)
    for number, row in enumerate(rows):
        _held["engine"].add_request(str(number), {"prompt_token_ids": row.tolist()}, params)
    return len(_finish())


def _finish() -> list[Any]:
    engine, found = _held["engine"], list[Any]()
    while engine.has_unfinished_requests():
        found += [output for output in engine.step() if output.finished]
    return found


class RawDeepSpeed:
    """ZeRO-3 ranks that update on microbatches as they come."""

    def __init__(self, spec: TrainSpec, num_ranks: int) -> None:
        self._pools = [_process(spec.policy.cpu_threads) for _ in range(num_ranks)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        started = [
            pool.submit(_build_rank, spec, rank, num_ranks, port)
            for rank, pool in enumerate(self._pools)
        ]
        for one in started:
            one.result()

    def update(
        self,
        microbatches_by_rank: Sequence[Sequence[Microbatch]],
        objective: Objective,
        norm: LossDenominators,
    ) -> None:
        """One optimizer step."""
        updates = [
            pool.submit(_update, microbatches, objective, norm)
            for pool, microbatches in zip(self._pools, microbatches_by_rank, strict=True)
        ]
        for one in updates:
            one.result()

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


def _build_rank(spec: TrainSpec, rank: int, num_ranks: int, port: int) -> None:
    from actors.engines.deepspeed_engine import TrainEngine  # noqa: PLC0415 - never in the parent

    _held["engine"] = TrainEngine(spec, rank, num_ranks, "127.0.0.1", port)


def _update(
    microbatches: Sequence[Microbatch], objective: Objective, norm: LossDenominators
) -> None:
    engine: TrainEngine = _held["engine"]
    engine.update(microbatches, None, objective, norm)
