"""vLLM engine inside an actor: sampling and scoring from one thread.

One thread owns the synchronous `LLMEngine` and steps it; other threads hand it requests and get
futures. A request is answered the moment it is done, while others still run. The same loop serves
sampling (rollout actors) and scoring (reward actors, pooling runner without activation).

New weights arrive through vLLM's own weight-transfer API, on a transport of
`actors.engines.vllm_transports`.

One file: one thread and everything that may reach it.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import queue
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import numpy as np
import torch
from transformers import PreTrainedConfig
from vllm import PoolingParams, SamplingParams
from vllm.config import VllmConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs.engine import tokens_input
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, PoolingRequestOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.executor import multiproc_executor, uniproc_executor
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats

from actors.engines.class_names import engine_name
from actors.engines.specs import EngineSpec, Sampled, SampledGroup, Sampling
from actors.engines.vllm_cpu import cpu_engine_args, register_cpu_kernels
from actors.engines.vllm_transports import register_host_memory
from conf.errors import EngineError, LostActorError
from conf.schema import MAX_TOP_K
from rl.base.scratch import Scratch, dead, one_at_a_time
from rl.types import Finish, IntArray

logger = logging.getLogger(__name__)
T = TypeVar("T")

# What vLLM says of the end of a completion; whatever else it may say is no end of an answer.
_FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}
_SCRATCH = "engine"  # what a scratch directory of an engine is called


class StatsSink(Protocol):
    """Receiver of what an engine's scheduler counts."""

    def record(self, running: int, waiting: int, kv_usage: float, queried: int, hits: int) -> None:
        """Take the state after one step, and the tokens that this step looked up and found."""
        ...


class _SchedulerStats(StatLoggerBase):
    """Scheduler statistics of each step, handed to a sink."""

    def __init__(self, vllm_config: VllmConfig, engine_index: int, sink: StatsSink) -> None:
        self._sink = sink

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        """Take one step; vLLM counts deferred requests apart from those that wait for room."""
        if scheduler_stats is not None:
            self._sink.record(
                running=scheduler_stats.num_running_reqs,
                waiting=scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs,
                kv_usage=scheduler_stats.kv_cache_usage,
                queried=scheduler_stats.prefix_cache_stats.queries,
                hits=scheduler_stats.prefix_cache_stats.hits,
            )

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


def build_engine(spec: EngineSpec, stats: StatsSink | None) -> LLMEngine:
    """Start an engine in this process (CPU, or one GPU) or with worker processes (several GPUs).

    `stats` is told what the scheduler counts.
    """
    if spec.device == "cpu":
        # The engine would bind every engine of this machine to the same core, and cut torch to one
        # thread unless the count is given.
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        os.environ["OMP_NUM_THREADS"] = str(spec.cpu_threads)
        torch.set_num_threads(spec.cpu_threads)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    register_host_memory()
    register_cpu_kernels()
    args: dict[str, Any] = {
        "model": spec.model,
        "runner": spec.runner,
        "dtype": spec.dtype,
        "max_model_len": spec.max_model_len,
        "max_num_seqs": spec.max_num_seqs,
        "tensor_parallel_size": spec.tensor_parallel,
        "distributed_executor_backend": "uni" if spec.tensor_parallel == 1 else "mp",
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,  # ids in, ids out: the one tokenizer is that of the actor
        "seed": spec.seed,
        "disable_log_stats": stats is None,
    }
    if spec.device == "cpu":
        args["kv_cache_memory_bytes"] = int(spec.kv_cache_gib * 2**30)
        args |= cpu_engine_args(spec.dtype)
        # Compiling takes longer than it saves over the life of a CPU run.
        args["enforce_eager"] = True
        # A prompt cut in chunks rewinds the request's generator, which CPU generators cannot do.
        args["enable_chunked_prefill"] = False
        args["max_num_batched_tokens"] = max(spec.max_model_len, 8192)
    else:
        args["gpu_memory_utilization"] = spec.gpu_memory_utilization
        args["enable_sleep_mode"] = spec.sleep_mode
    if spec.runner == "generate":
        args["generation_config"] = "vllm"  # the sampling is ours, not that of the model's card
        args["logprobs_mode"] = "processed_logprobs"  # of the distribution that is sampled from
        args["max_logprobs"] = _asked_of(MAX_TOP_K)
    else:
        args["hf_overrides"] = _rename_architectures
    if spec.weight_backend is not None:
        args["weight_transfer_config"] = WeightTransferConfig(backend=spec.weight_backend)
    args |= spec.given
    loggers: list[Any] | None = None if stats is None else [partial(_SchedulerStats, sink=stats)]
    with one_at_a_time(_shared_devices(spec)):
        engine = LLMEngine.from_engine_args(EngineArgs(**args), stat_loggers=loggers)
    # The scheduler goes on counting; only the time of each token, which costs, is not taken.
    engine.log_stats = False
    return engine


def _meet_in(directory: Path) -> None:
    """Let processes of the engine that is built next meet over a file in here.

    vLLM puts it below the temporary directory, where it stays when the engine is killed.
    """

    def get_file_store_init_method() -> str:
        return f"file://{directory}/{uuid4().hex}"

    for module in (uniproc_executor, multiproc_executor):
        vars(module)[get_file_store_init_method.__name__] = get_file_store_init_method


def _shared_devices(spec: EngineSpec) -> Sequence[str]:
    """Devices that other engines may start on: each takes what is used meanwhile for its own."""
    if not spec.sleep_mode:
        return ()
    return [f"gpu-{index}" for index in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]


def _rename_architectures(config: PreTrainedConfig) -> PreTrainedConfig:
    config.architectures = [engine_name(name) for name in config.architectures or []]
    return config


@dataclass(slots=True, kw_only=True)
class _Request:
    """Sequences that are answered together."""

    rows: list[list[int]]
    params: SamplingParams | PoolingParams
    future: Future[Any]  # one answer to sample(), a list of them to score_all()
    answers: dict[int, SampledGroup | float] = field(default_factory=dict)  # by row

    def all_answers(self) -> Any:  # noqa: ANN401 - what the future promises
        """In the order of the rows."""
        if isinstance(self.params, SamplingParams):
            return self.answers[0]
        return [self.answers[row] for row in range(len(self.rows))]


@dataclass(slots=True)
class _Command:
    function: Callable[[LLMEngine], Any]
    future: Future[Any]


class EngineLoop:
    """A thread that owns an engine, steps it, and answers each request when it is done.

    `exclusive` commands run when no request is in flight, and hold back the requests that come
    after them: that is how weights change only between completions, never within one.
    """

    def __init__(self, spec: EngineSpec, name: str, stats: StatsSink | None = None) -> None:
        self._inbox: queue.SimpleQueue[_Request | _Command | None] = queue.SimpleQueue()
        self._waiting: list[_Request | _Command] = []
        self._in_flight: dict[str, tuple[_Request, int]] = {}  # with the row of it
        self._held = False
        self.policy_version = 0
        self._ids = itertools.count()
        self._engine: LLMEngine
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._live, args=(spec, stats, ready), name=name, daemon=True
        )
        self._thread.start()
        ready.result()

    def sample(self, token_ids: Sequence[int], how: Sampling) -> Future[SampledGroup]:
        """Sample completions of one prompt; the future holds all of them."""
        params = SamplingParams(
            n=how.num,
            max_tokens=how.max_tokens,
            temperature=how.temperature,
            top_p=how.top_p,
            top_k=how.top_k,
            seed=how.seed,
            stop_token_ids=list(how.stop_token_ids),
            logprobs=_asked_of(how.top_k),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        return self._submit([token_ids], params)

    def score_all(self, rows: Sequence[IntArray]) -> Future[list[float]]:
        """Read out the raw logits of sequences; at least one.

        One future for all of them: a thread that wakes up for each sequence takes the interpreter
        from the thread that steps the engine.
        """
        return self._submit(rows, PoolingParams(task="classify", use_activation=False))

    def exclusive(self, function: Callable[[LLMEngine], T]) -> Future[T]:
        """Run `function` on the engine's thread once every earlier request is done."""
        future: Future[T] = Future()
        self._inbox.put(_Command(function, future))
        return future

    def hold(self) -> Future[None]:
        """Finish what is in flight, then admit no request until `release`; commands still run."""

        def hold_back(_: LLMEngine) -> None:
            self._held = True

        return self.exclusive(hold_back)

    def release(self) -> Future[None]:
        """Admit requests again."""

        def admit(_: LLMEngine) -> None:
            self._held = False

        return self.exclusive(admit)

    def close(self, timeout_s: float = 30.0) -> None:
        """End the thread; what is in flight fails."""
        self._inbox.put(None)
        self._thread.join(timeout_s)

    # --- weight updates: the four calls of vLLM's weight-transfer API ----------------------------

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> Future[Any]:
        """Agree with the sender on the transport (`nccl`, `ipc`); `host_memory` needs nothing."""
        return self.exclusive(
            lambda engine: engine.collective_rpc(
                "init_weight_transfer_engine", kwargs={"init_info": dict(init_info)}
            )
        )

    def start_weight_update(self) -> Future[Any]:
        """Finish what is in flight, hold back new requests, open the update."""
        self.hold()
        return self.exclusive(lambda engine: engine.collective_rpc("start_weight_update"))

    def update_weights(self, update_info: Mapping[str, Any]) -> Future[Any]:
        """Load one bucket."""
        return self.exclusive(
            lambda engine: engine.collective_rpc(
                "update_weights", kwargs={"update_info": dict(update_info)}
            )
        )

    def finish_weight_update(self, policy_version: int) -> Future[int]:
        """Close the update, forget prefixes of the old weights, admit requests again."""

        def finish(engine: LLMEngine) -> int:
            engine.collective_rpc("finish_weight_update")
            if not engine.reset_prefix_cache():
                raise EngineError("the prefix cache could not be reset after a weight update")
            engine.set_weight_version(str(policy_version))
            self.policy_version = policy_version
            return int(engine.get_weight_version())

        future = self.exclusive(finish)
        self.release()
        return future

    # --- a device that is shared in turns --------------------------------------------------------

    def sleep(self) -> Future[None]:
        """Finish what is in flight, admit nothing, free the device; weights go to host memory.

        Level 2 would drop them. But engines wake for scores, for the probe and after log-probs too,
        without a publication, and a judge gets none at all.
        """
        self.hold()
        return self.exclusive(lambda engine: engine.sleep(level=1))

    def wake(self) -> Future[None]:
        """Take the device back and admit requests again."""

        def wake_up(engine: LLMEngine) -> None:
            engine.wake_up()

        future = self.exclusive(wake_up)
        self.release()
        return future

    def _submit(
        self, rows: Sequence[Sequence[int] | IntArray], params: SamplingParams | PoolingParams
    ) -> Future[Any]:
        token_ids = [np.asarray(row).tolist() for row in rows]
        request = _Request(rows=token_ids, params=params, future=Future())
        self._inbox.put(request)
        return request.future

    def _live(self, spec: EngineSpec, stats: StatsSink | None, ready: Future[None]) -> None:
        for left in dead(what=_SCRATCH):  # by engines that were killed
            shutil.rmtree(left, ignore_errors=True)
        with Scratch(_SCRATCH) as scratch:
            _meet_in(scratch.path)
            # Built here, because OpenMP keeps the number of threads for each calling thread.
            try:
                self._engine = build_engine(spec, stats)
            except Exception as error:  # noqa: BLE001 - handed to the constructor's caller
                ready.set_exception(error)
                return
            ready.set_result(None)
            while self._take():
                self._drop_abandoned()
                self._admit()
                if self._in_flight:
                    self._step()

    def _take(self) -> bool:
        """Move the inbox to the waiting list; block only when there is nothing to do."""
        runnable = self._in_flight or any(
            isinstance(item, _Command) or not self._held for item in self._waiting
        )
        block = not runnable
        while True:
            try:
                item = self._inbox.get(block=block)
            except queue.Empty:
                return True
            block = False
            if item is None:
                self._fail(EngineError("the engine was closed"))
                return False
            self._waiting.append(item)

    def _drop_abandoned(self) -> None:
        """Forget requests whose futures were cancelled: nobody waits for them any more."""
        gone = [key for key, (request, _) in self._in_flight.items() if request.future.cancelled()]
        if gone:
            self._engine.abort_request(gone)
            for key in gone:
                del self._in_flight[key]
        self._waiting = [item for item in self._waiting if not item.future.cancelled()]

    def _admit(self) -> None:
        """Start requests and run commands in the order in which they came."""
        held_back: list[_Request | _Command] = []
        while self._waiting:
            item = self._waiting[0]
            if isinstance(item, _Command):
                if self._in_flight:
                    break
                self._waiting.pop(0)
                self._execute(item)
            elif self._held:
                held_back.append(self._waiting.pop(0))
            else:
                self._waiting.pop(0)
                self._start(item)
        self._waiting[:0] = held_back

    def _start(self, request: _Request) -> None:
        for row, token_ids in enumerate(request.rows):
            request_id = str(next(self._ids))
            try:
                self._engine.add_request(request_id, tokens_input(token_ids), request.params)
            except ValueError as error:  # the engine refuses this request; others go on
                request.future.set_exception(EngineError(str(error)))
                return
            self._in_flight[request_id] = (request, row)

    def _execute(self, command: _Command) -> None:
        try:
            command.future.set_result(command.function(self._engine))
        except Exception as error:  # noqa: BLE001 - handed to the caller through the future
            command.future.set_exception(error)

    def _step(self) -> None:
        try:
            outputs = self._engine.step()
        except Exception as error:  # every caller gets it through its future
            logger.exception("the engine failed in a step")
            self._fail(LostActorError(f"the engine failed in a step: {error!r}"))
            return
        for output in outputs:
            if output.finished:
                request, row = self._in_flight.pop(output.request_id)
                request.answers[row] = self._answer(output, request.params)
                complete = len(request.answers) == len(request.rows)
                if complete and request.future.set_running_or_notify_cancel():
                    request.future.set_result(request.all_answers())

    def _answer(
        self,
        output: RequestOutput | PoolingRequestOutput[Any],
        params: SamplingParams | PoolingParams,
    ) -> SampledGroup | float:
        if isinstance(output, PoolingRequestOutput):
            return float(output.outputs.data.reshape(-1)[0])
        records_support = isinstance(params, SamplingParams) and bool(params.logprobs)
        completions = tuple(
            _sampled(one, records_support=records_support) for one in output.outputs
        )
        return SampledGroup(completions=completions, policy_version=self.policy_version)

    def _fail(self, error: EngineError) -> None:
        requests = [request for request, _ in self._in_flight.values()]
        for item in [*requests, *self._waiting]:
            if not item.future.done():
                item.future.set_exception(error)
        self._in_flight.clear()
        self._waiting.clear()


def _asked_of(top_k: int) -> int:
    """Log-probs to ask for: of what may be sampled, or of the token that is.

    Twice as many as `top_k`, because tokens that tie with the last are sampled among too, which is
    common with logits in bfloat16.
    """
    return 2 * top_k if 1 <= top_k <= MAX_TOP_K else 0


def _support(logprobs: Sequence[Mapping[int, Logprob]]) -> IntArray:
    """Tokens with a probability, of each place; -1 fills up to the most."""
    found = [[token for token, about in at.items() if about.logprob > -math.inf] for at in logprobs]
    width = max(map(len, found), default=1)
    return np.array([tokens + [-1] * (width - len(tokens)) for tokens in found], dtype=np.int32)


def _sampled(one: CompletionOutput, *, records_support: bool) -> Sampled:
    logprobs = [at for at in one.logprobs or [] if at is not None]  # None: of prompt tokens only
    return Sampled(
        token_ids=np.asarray(one.token_ids, dtype=np.int32),
        logprobs=np.array(
            [at[token].logprob for at, token in zip(logprobs, one.token_ids, strict=True)],
            dtype=np.float32,
        ),
        support_TK=_support(logprobs) if records_support else None,
        finish=_FINISHES.get(one.finish_reason or "", Finish.ABORTED),
    )
