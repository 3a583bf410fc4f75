"""One small model through the real engines: `python architecture_probe.py DIR`.

DeepSpeed is in this process and vLLM in one of its own, as in a run: vLLM changes classes of
transformers for the whole process. A family takes seconds and not a fleet. The last line of the
output is JSON: what each check found, or the refusal.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from actors.engines.forward_check import gap_of
from actors.engines.specs import EngineSpec, Runner, Sampling, TrainSpec, WeightBackend
from actors.engines.train_model import plain_reader
from actors.plan.checks.engine_support import EngineNeeds, check_engine
from conf.errors import ProjectError
from conf.schema import PolicyConfig
from reward.model.loading import Head, check_attention, check_tensors
from rl.loss import LossDenominators, PolicyObjective
from rl.packing import Packing, build_minibatch
from rl.parcels import unpack
from rl.types import FloatArray, IntArray, Sample

_CONTEXT, _PROMPT_TOKENS, _NEW_TOKENS = 128, 20, 16
# An update that every log-prob shows.
_POLICY = PolicyConfig(lr=1e-2, microbatch_tokens=1024)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def refusal(directory: Path, *, scores: bool) -> str | None:
    """Why a run refuses the model before an engine starts; None where it does not."""
    try:
        check_tensors(directory, "model", "score" if scores else "lm")
        runner: Runner = "pooling" if scores else "generate"
        check_engine(directory, "model", EngineNeeds(runner, "cpu", trains=not scores))
        check_attention(directory, "policy.attention", "score" if scores else "lm", "sdpa")
    except ProjectError as error:
        return str(error)
    return None


def probe_policy(directory: Path) -> dict[str, Any]:
    """Self-check of a rank, and parity with an engine: as loaded, published, updated, saved."""
    trainer = _trainer(directory, "lm")
    check = trainer.self_check(2**40)
    found: dict[str, Any] = {"forward": check.about(), "packs": check.packs, "gaps": {}}
    check.check(str(directory))
    engine = _Engine(directory, "generate", "host_memory")
    found["gaps"]["loaded"], samples = _parity(trainer, engine, check.packs)
    _publish(trainer, engine, 1)
    found["gaps"]["published"], samples = _parity(trainer, engine, check.packs)
    _update(trainer, samples, check.packs)
    _publish(trainer, engine, 2)
    found["gaps"]["updated"], _ = _parity(trainer, engine, check.packs)
    saved = directory.with_name(f"{directory.name}-saved")
    trainer.save_hf(saved)
    check_tensors(saved, "saved", "lm")
    found["gaps"]["saved"] = _plain_gap(trainer, saved, samples, check.packs)
    return found


def probe_reward_model(directory: Path) -> dict[str, Any]:
    """Self-check of a rank with a score head, and an engine's scores beside plain transformers."""
    trainer = _trainer(directory, "score")
    check = trainer.self_check(2**40)
    found: dict[str, Any] = {
        "forward": check.about(),
        "packs": check.packs,
        "shares": check.shares,
        "gaps": {},
    }
    check.check(str(directory))
    engine = _Engine(directory, "pooling", None)
    rng = np.random.default_rng(3)
    rows = [rng.integers(10, 500, size=size).astype(np.int32) for size in (9, 57, 100)]
    read = plain_reader(trainer.spec, None)
    theirs = [read(row) for row in rows]
    ours = [np.array([score], np.float32) for score in engine.ask(_score, rows)]
    found["gaps"]["scores"] = gap_of(ours, theirs, "float32")
    return found


def _trainer(directory: Path, head: Head) -> Any:  # noqa: ANN401
    from actors.engines.deepspeed_engine import TrainEngine  # noqa: PLC0415 - seconds

    spec = TrainSpec(model_path=str(directory), head=head, policy=_POLICY, total_steps=4)
    return TrainEngine(spec, 0, 1, "127.0.0.1", _free_port())


class _Engine:
    """An `EngineLoop` in a process of its own, which ends with this one."""

    def __init__(
        self,
        directory: Path,
        runner: Runner,
        backend: WeightBackend | None,
    ) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.ask(_start, str(directory), runner, backend)

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        """Call a function of this module beside the engine."""
        return self._pool.submit(function, *args).result(120)


_loops: list[Any] = []  # the one `EngineLoop`, in the process of the engine


def _start(directory: str, runner: Runner, backend: WeightBackend | None) -> None:
    from actors.engines.vllm_engine import EngineLoop  # noqa: PLC0415 - seconds

    threading.Thread(target=_end_with_parent, daemon=True).start()
    spec = EngineSpec(
        model=directory,
        runner=runner,
        device="cpu",
        dtype="float32",
        max_model_len=_CONTEXT,
        max_num_seqs=8,
        tensor_parallel=1,
        gpu_memory_utilization=0.85,
        kv_cache_gib=0.2,
        cpu_threads=1,
        sleep_mode=False,
        seed=0,
        weight_backend=backend,
    )
    _loops.append(EngineLoop(spec, "probe"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)


def _score(rows: Sequence[IntArray]) -> list[float]:
    return _loops[0].score_all(rows).result()


def _sample(prompt: Sequence[int], seed: int) -> list[tuple[IntArray, FloatArray]]:
    how = Sampling(num=2, max_tokens=_NEW_TOKENS, temperature=1.0, seed=seed)
    completions = _loops[0].sample(prompt, how).result().completions
    return [(one.token_ids, one.logprobs) for one in completions]


def _receive(buckets: Sequence[dict[str, Any]], version: int) -> None:
    loop = _loops[0]
    loop.start_weight_update().result()
    for bucket in buckets:
        loop.update_weights(bucket).result()
    loop.finish_weight_update(version).result()


def _publish(trainer: Any, engine: _Engine, version: int) -> None:  # noqa: ANN401
    from actors.groups.weights import BUCKET_BYTES, host_bucket  # noqa: PLC0415

    buckets = [host_bucket(bucket) for bucket in trainer.iter_full_parameters(BUCKET_BYTES)]
    engine.ask(_receive, buckets, version)


def _parity(trainer: Any, engine: _Engine, packs: bool) -> tuple[float, list[Sample]]:  # noqa: ANN401
    """Largest difference between what an engine says of its samples and what the rank says."""
    rng = np.random.default_rng(0)
    samples: list[Sample] = []
    for index in range(3):
        prompt = rng.integers(10, 500, size=_PROMPT_TOKENS).astype(np.int32)
        completions = engine.ask(_sample, prompt.tolist(), index)
        for number, (token_ids, logprobs) in enumerate(completions):
            samples.append(
                Sample(
                    prompt_id=str(index),
                    sample_idx=number,
                    token_ids=np.concatenate([prompt, token_ids]),
                    num_prompt_tokens=_PROMPT_TOKENS,
                    rollout_logprobs=logprobs,
                    advantage=1.0 - 2.0 * number,
                    policy_version=0,
                )
            )
    theirs = [sample.rollout_logprobs for sample in samples]
    return gap_of(_logprobs(trainer, samples, packs), theirs, "float32"), samples


def _minibatch(samples: list[Sample], packs: bool) -> Any:  # noqa: ANN401
    packing = Packing(num_ranks=1, microbatch_tokens=1024, row_tokens=256, packs=packs)
    return build_minibatch(samples, packing)


def _logprobs(trainer: Any, samples: list[Sample], packs: bool) -> list[FloatArray]:  # noqa: ANN401
    minibatch = _minibatch(samples, packs)
    microbatches = minibatch.microbatches_by_rank[0]
    found = unpack(microbatches, trainer.outputs(microbatches))
    return [found[index] for index in range(len(samples))]


def _update(trainer: Any, samples: list[Sample], packs: bool) -> None:  # noqa: ANN401
    minibatch = _minibatch(samples, packs)
    norm = LossDenominators(minibatch.num_loss_tokens, minibatch.num_samples)
    trainer.update(minibatch.microbatches_by_rank[0], None, PolicyObjective(), norm)


def _plain_gap(trainer: Any, saved: Path, samples: list[Sample], packs: bool) -> float:  # noqa: ANN401
    """What was saved, read by plain transformers, beside the rank that saved it."""
    spec = TrainSpec(model_path=str(saved), policy=_POLICY, total_steps=1)
    read = plain_reader(spec, None)

    def tail(token_ids: IntArray) -> FloatArray:
        return read(token_ids)[_PROMPT_TOKENS - 1 :]

    theirs = [tail(sample.token_ids) for sample in samples]
    return gap_of(_logprobs(trainer, samples, packs), theirs, "float32")


def main() -> None:
    """Probe the model of the command line."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    torch.set_num_threads(1)
    directory, scores = Path(sys.argv[1]), "score" in sys.argv[2:]
    result: dict[str, Any] = {"refused": refusal(directory, scores=scores)}
    if result["refused"] is None or "anyway" in sys.argv[2:]:
        try:
            result |= (probe_reward_model if scores else probe_policy)(directory)
        except Exception as error:  # noqa: BLE001 - what a library does with a family is the result
            result["failed"] = f"{type(error).__name__}: {error}"
    sys.stdout.write(f"\n{json.dumps(result)}\n")
    sys.stdout.flush()
    os._exit(0)  # engines would wait for each other at the end


if __name__ == "__main__":
    main()
