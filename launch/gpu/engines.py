"""Parts `engines`, `nccl` and `quickstart`: the actors of a run on real devices.

The fleet is that of a run, started by the same code; only the weights are random.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from actors.cluster.deadlines import all_of
from actors.cluster.session import session
from actors.engines.forward_check import gap_of
from actors.groups.fleet import FleetSpec, RayFleet, policy_spec, start_fleet
from conf.schema import Config
from launch.common.compose import compose_config
from launch.common.overrides import forced_overrides
from launch.gpu.parts import Bench
from launch.gpu.shapes import SMALL, dimensions, samples, write_model
from rl.loss import NllObjective
from rl.packing import build_minibatch
from rl.parcels import unpack
from rl.problems import minipy
from rl.samples import sample_of
from rl.types import Ask, FloatArray, Sample, SamplingConfig

Placement = Literal["laptop", "one_gpu", "one_node"]

TREE = Path(__file__).resolve().parents[2]
_GIB = 2**30
_NAME = "gpu-check"
_NUM_UPDATES = 3
# Of log-probs: the largest difference in float32, the mean one in bfloat16.
_PARITY_BOUND = {"float32": 1e-3, "bfloat16": 0.1}
_MOVED = 2.0  # times that bound: how far the updates have to move the policy
# Of the norm of the head, which is about the size of a score. Random models say almost the same of
# all answers, which end alike, so their spread is no measure.
_SCORE_BOUND = {"float32": 1e-3, "bfloat16": 0.05}
_RETURNED = 0.5  # of what the engines may take: the least that their sleep returns


def measure_shared(bench: Bench) -> None:
    """Policy, rollout engine and reward model on one device, in turns."""
    cfg = _config(bench, "laptop" if bench.is_rehearsal else "one_gpu")
    _measure(bench, cfg, reward=True)


def measure_apart(bench: Bench) -> None:
    """Policy and rollout engine on devices of their own."""
    _measure(bench, _config(bench, "laptop" if bench.is_rehearsal else "one_node"), reward=False)


def measure_quickstart(bench: Bench) -> None:
    """Few steps of the quickstart as a command, and what its metrics say."""
    experiment = "quickstart" if bench.is_rehearsal else "quickstart_gpu"
    steps = 2 if bench.is_rehearsal else 10
    arguments = [
        f"experiment={experiment}",
        f"output_dir={bench.folder}",
        "name=run",
        f"algorithm.num_steps={steps}",
        "probe.every=0",
        "evaluation.num_samples=1",
    ]
    command = [sys.executable, str(TREE / "launch/train.py"), *arguments]
    started_s = time.perf_counter()
    done = subprocess.run(command, cwd=TREE, check=False, stdout=sys.stderr)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why, and a traceback of ours would say it last
    bench.record("the command", time.perf_counter() - started_s, "s")
    lines = (bench.folder / experiment / "run/metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    bench.record("steps", len(metrics), least=steps)
    step_s = statistics.median(step["time/step_s"] for step in metrics)
    bench.record("a step, median", step_s, "s")
    mismatch = max(step["rollout/mismatch_kl"] for step in metrics)
    bench.record("rollout/mismatch_kl, largest", mismatch, most=1e-3)


def _config(bench: Bench, placement: Placement) -> Config:
    """The settings of a run with random models at the smaller shape."""
    dims = dimensions(bench, SMALL)
    policy = write_model(bench, "policy", dims)
    judge = write_model(bench, "judge", dims, scores=True)
    return compose_config(forced_overrides(overrides(bench, placement, policy, judge)))


def overrides(bench: Bench, placement: Placement, policy: Path, judge: Path) -> list[str]:
    """A run of the quickstart with other models, on one device or two."""
    experiment = "quickstart" if bench.is_rehearsal else "quickstart_gpu"
    return [
        f"experiment={experiment}",
        f"placement={placement}",
        f"model.path={policy}",
        f"model.dtype={bench.dtype}",
        f"reward.model={judge}",
        f"reward.dtype={bench.dtype}",
        "policy.ranks=1",
        "policy.lr=1e-3",  # so that few updates move weights in bfloat16
        "policy.gradient_checkpointing=true",
        "algorithm.kl_coef=0",
        "supervision.restarts=0",
        f"output_dir={bench.folder}",
    ]


def _measure(bench: Bench, cfg: Config, *, reward: bool) -> None:
    train = policy_spec(cfg, _NUM_UPDATES)
    specs = FleetSpec(rollout_model=cfg.model.path, reward=reward, train=train)

    async def body() -> None:
        started_s = time.perf_counter()
        async with start_fleet(cfg, specs, _NAME) as fleet:
            bench.record("start and self-check", time.perf_counter() - started_s, "s")
            await _publication(bench, cfg, fleet)
            if reward:
                await _sleep(bench, cfg, fleet)
                await _scores(bench, cfg, fleet)

    with session(cfg.ray, _NAME) as run:
        run(body())


async def _publication(bench: Bench, cfg: Config, fleet: RayFleet) -> None:
    """Updates, each published; then weights and log-probs of both sides, beside each other."""
    work = samples(dimensions(bench, SMALL), groups=4, size=2, prompt=48, completion=16)
    before = await _sampled(fleet, version=0)
    minibatch = build_minibatch(work, fleet.policy.packing)
    found: list[float] = []
    for version in range(1, _NUM_UPDATES + 1):
        await fleet.policy.update(minibatch, None, NllObjective())
        await fleet.policy.give_way()  # waking is not part of it
        started_s = time.perf_counter()
        await fleet.policy.publish(version)
        found.append(time.perf_counter() - started_s)
    num_bytes = _num_bytes(Path(cfg.model.path))
    seconds = statistics.median(found)
    bench.record("publication", seconds, "s")
    bench.record("publication, speed", num_bytes / seconds / 1e9, "GB/s")
    await _checksum(bench, fleet)
    after = await _sampled(fleet, version=_NUM_UPDATES)
    bound = _PARITY_BOUND[bench.dtype]
    gap = await _gap(bench, fleet, after)
    bench.record("log-probs of engine and policy", gap, "nats", most=bound)
    moved = await _gap(bench, fleet, before)
    bench.record("log-probs that the updates moved", moved, "nats", least=_MOVED * bound)
    await fleet.policy.give_way()


def _num_bytes(model: Path) -> int:
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


async def _sampled(fleet: RayFleet, version: int) -> list[Sample]:
    """Completions of a few problems by the engine."""
    sampling = SamplingConfig(group_size=4, max_tokens=32, seed=5, purpose=_NAME)
    asks = [Ask.code(prompt, sampling) for prompt in minipy.make_prompts("train", 8, 0)]
    groups = [group async for group in fleet.rollout.generate(asks, version)]
    return [
        sample_of(group, position, 0.0)
        for group in groups
        for position in range(len(group.completions_G))
    ]


async def _gap(bench: Bench, fleet: RayFleet, of_engine: Sequence[Sample]) -> float:
    """How far what the engine said of its samples is from what the policy says of them now."""
    minibatch = build_minibatch(of_engine, fleet.policy.packing)
    by_sample: dict[int, FloatArray] = {}
    outputs = await fleet.policy.outputs(minibatch)
    for microbatches, values in zip(minibatch.microbatches_by_rank, outputs, strict=True):
        by_sample |= unpack(microbatches, values)
    ours = [by_sample[index] for index in range(len(of_engine))]
    return gap_of(ours, [sample.rollout_logprobs for sample in of_engine], bench.dtype)


async def _sleep(bench: Bench, cfg: Config, fleet: RayFleet) -> None:
    """Memory that the engines return while they sleep, and how long they take to wake."""
    if bench.is_rehearsal:
        bench.record.skip("sleep", "a CPU is not shared in turns")
        return
    awake, total = torch.cuda.mem_get_info()
    work = samples(dimensions(bench, SMALL), groups=1, size=1, prompt=8, completion=8)
    await fleet.policy.outputs(build_minibatch(work, fleet.policy.packing))
    asleep, _ = torch.cuda.mem_get_info()
    share = cfg.rollout.gpu_memory_utilization + cfg.reward.gpu_memory_utilization
    returned = (asleep - awake) / _GIB
    bench.record(
        "memory returned by sleep", returned, "GiB", least=_RETURNED * share * total / _GIB
    )
    started_s = time.perf_counter()
    await fleet.policy.give_way()
    bench.record("waking both engines", time.perf_counter() - started_s, "s")
    again = await _sampled(fleet, version=_NUM_UPDATES)
    gap = await _gap(bench, fleet, again)
    bound = _PARITY_BOUND[bench.dtype]
    bench.record("log-probs after waking", gap, "nats", most=bound)
    await fleet.policy.give_way()


async def _scores(bench: Bench, cfg: Config, fleet: RayFleet) -> None:
    """Scores of the reward group beside those of transformers in float32."""
    rng = random.Random(0)
    specs = minipy.specs("eval", 32, 0)
    work = [(spec.question, [spec.program(rng), rng.choice(specs).program(rng)]) for spec in specs]
    scored = await all_of(fleet.reward.score_problem(*problem) for problem in work)
    ours = np.array([[score.value for score in row] for row in scored], dtype=np.float64)
    plain, norm = _plain_scores(bench, str(cfg.reward.model), work)
    error = float(np.abs(ours - np.array(plain)).max() / norm)
    what = "scores beside transformers"
    bench.record(what, error, "of the norm of the head", most=_SCORE_BOUND[bench.dtype])


def _plain_scores(
    bench: Bench, directory: str, work: Sequence[tuple[str, Sequence[str]]]
) -> tuple[list[list[float]], float]:
    """Scores of transformers in float32, and the norm of the head that they were read with."""
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    model: Any = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
    model.eval().to(bench.device)

    def score(question: str, code: str) -> float:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": code}]
        inputs = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            return float(model(**inputs.to(bench.device)).logits[0, 0])

    scores = [[score(question, code) for code in codes] for question, codes in work]
    return scores, float(model.score.weight.norm())


# --- a checksum of weights that does not depend on how they are laid out -------------------------


async def _checksum(bench: Bench, fleet: RayFleet) -> None:
    """Bits of all weights, added up: the same however a library fuses and orders them."""
    engine, rank = fleet.rollout.seats[0].handle, fleet.policy.handles[0]
    part = "norm" if bench.is_rehearsal else ""  # a CPU packs its matrices
    theirs = await _in_actor(engine, partial(_sum_of_engine, part=part))
    ours = await _in_actor(rank, partial(_sum_of_rank, part=part))
    bench.record("checksum of the weights, difference", float(abs(ours - theirs)), most=0)


def _in_actor(handle: object, function: Callable[[Any], int]) -> Awaitable[int]:
    return cast("Any", handle).__ray_call__.remote(function)


def _sum_of_engine(actor: Any, part: str) -> int:  # noqa: ANN401 - inside of a rollout actor
    work = partial(_sum_of_worker, part=part)
    return sum(actor._loop.exclusive(lambda engine: engine.collective_rpc(work)).result())


def _sum_of_worker(worker: Any, part: str) -> int:  # noqa: ANN401 - of vLLM
    return _sum_of(worker.get_model().named_parameters(), part)


def _sum_of_rank(actor: Any, part: str) -> int:  # noqa: ANN401 - inside of a policy actor
    return sum(_sum_of(bucket, part) for bucket in actor._engine.iter_full_parameters(2**29))


def _sum_of(weights: Iterable[tuple[str, torch.Tensor]], part: str) -> int:
    """Over the weights with `part` in their name; tied ones, which have two names, count once."""
    found = {tensor.data_ptr(): tensor for name, tensor in weights if part in name}
    return sum(map(bit_sum, found.values()))


def bit_sum(tensor: torch.Tensor) -> int:
    """The bits of every number as an integer, added up; padding with zeros adds nothing.

    >>> bit_sum(torch.tensor([1.0, 0.0])) == bit_sum(torch.tensor([[0.0, 1.0, 0.0]])) != 0
    True
    """
    whole = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    return int(tensor.detach().contiguous().view(whole).sum(dtype=torch.int64))
