"""The numerical self-check of a run: ranks, engines and plain transformers say the same of a text.

At the start the ranks compare every way to read few short samples (`actors.engines.forward_check`),
which also decides whether samples are packed. Then each rollout engine answers fixed prompts, and
the ranks compute the log-probs of what it sampled: once with the weights that the engine loaded,
and once with those that the ranks published to it. During a strictly on-policy run
`rollout/mismatch_kl` says the same of every step, and has a bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.engines.forward_check import gap_of
from actors.groups.rollout import RolloutEngines
from actors.groups.train_actor import LocalPolicy
from actors.groups.trainer import TrainGroup
from conf.errors import EngineError, ProjectError
from conf.schema import Config, Dtype, RolloutConfig, SelfCheckConfig
from rl.base.console import Console
from rl.packing import build_minibatch
from rl.parcels import unpack
from rl.samples import sample_of
from rl.types import (
    Ask,
    FloatArray,
    Message,
    Prompt,
    Sample,
    SamplingConfig,
)

# Of log-probs: the largest difference in float32, the mean one in bfloat16.
_ENGINE_TOLERANCE: Mapping[Dtype, float] = {"float32": 1e-3, "bfloat16": 0.1}
_MISMATCH_KL: Mapping[Dtype, float] = {"float32": 1e-3, "bfloat16": 0.05}
_QUESTIONS = (
    "Write a function that returns the sum of two numbers.",
    "Return the largest element of a list, or None when it is empty.",
    "Count the vowels of a word.",
)
_NUM_TOKENS = 16
_GIB = 2**30


async def check_ranks(cfg: SelfCheckConfig, trainer: TrainGroup | LocalPolicy, model: str) -> None:
    """Check what the ranks compute, and decide how samples are laid out in rows.

    Raises:
        EngineError: for a model that says other things here than by itself.
    """
    if cfg.action == "off":
        trainer.unchecked()
        return
    shares = trainer.packing.share_prefix != "off"
    try:
        found = await trainer.self_check(model, int(cfg.plain_gib * _GIB))
    except EngineError as error:
        _stop_or_warn(cfg, error)
        return
    console = Console()
    console.say(f"self-check  ranks: {found.about()}")
    for note in found.notes(shares):
        console.warn(note)


async def check_engines(
    cfg: Config, rollout: RolloutEngines, trainer: TrainGroup, version: int, weights: str
) -> None:
    """Compare what each rollout engine says of its own samples with what the ranks say.

    `weights` are those that the engines hold, in words. The engines can sample when this returns.

    Raises:
        EngineError: naming the engine, when they are further apart than rounding explains.
    """
    if cfg.self_check.action == "off":
        return
    dtype = cfg.model.dtype
    allowed = cfg.self_check.tolerance or _ENGINE_TOLERANCE[dtype]
    sampling = SamplingConfig(
        group_size=2,
        max_tokens=min(_NUM_TOKENS, cfg.model.max_completion_tokens),
        temperature=cfg.rollout.temperature,
        seed=cfg.seed,
        purpose="self-check",
    )
    # All of them before the ranks take the devices.
    samples = [await _sampled(rollout.alone(seat), sampling, version) for seat in rollout.seats]
    gaps: list[float] = []
    for of_engine in samples:
        theirs = [sample.rollout_logprobs for sample in of_engine]
        ours = await _logprobs(trainer, of_engine)
        gaps.append(gap_of(ours, theirs, dtype))
    await trainer.give_way()
    for index, gap in enumerate(gaps):
        if not gap <= allowed:  # NaN too
            error = EngineError(
                f"self-check: rollout-{index} and the policy ranks are {gap:.3g} apart in the "
                f"log-probs of {len(samples[index])} completions, with {weights} (allowed with "
                f"{dtype}: {allowed:.1g}): the engine samples from another model than the one that "
                "is trained; see docs/architectures.md, or set self_check.tolerance"
            )
            _stop_or_warn(cfg.self_check, error)
    Console().say(f"self-check  engines, {weights}: {max(gaps):.1e} ({dtype})")


def check_mismatch(
    cfg: SelfCheckConfig, dtype: Dtype, step: int, metrics: Mapping[str, float]
) -> None:
    """Hold a step of a strict run to what the name says: the sampler is the trained policy.

    Raises:
        EngineError: when `rollout/mismatch_kl` is above its bound.
    """
    found = metrics.get("rollout/mismatch_kl")
    bound = cfg.mismatch_kl or _MISMATCH_KL[dtype]
    if found is None or found <= bound:
        return
    error = EngineError(
        f"step {step}: rollout/mismatch_kl is {found:.3g} in a strictly on-policy run (bound: "
        f"{bound:.1g}): the engines sample from another distribution than the policy ranks "
        "compute; see docs/architectures.md, or set self_check.mismatch_kl"
    )
    _stop_or_warn(cfg, error)


def is_strict(cfg: SelfCheckConfig, rollout: RolloutConfig, *, stale: bool) -> bool:
    """Whether engines and ranks should agree to rounding in every step, and somebody looks.

    `stale`: some samples that are learned may be of older policies.
    """
    return cfg.action != "off" and rollout.is_exact and not stale


def _stop_or_warn(cfg: SelfCheckConfig, error: ProjectError) -> None:
    if cfg.action == "stop":
        raise error
    Console().warn(str(error))


async def _sampled(engine: RolloutEngines, sampling: SamplingConfig, version: int) -> list[Sample]:
    """Few completions of fixed prompts by one engine."""
    asks = [
        Ask.code(Prompt(id=f"self-check-{index}", messages=(Message("user", question),)), sampling)
        for index, question in enumerate(_QUESTIONS)
    ]
    groups = [group async for group in engine.generate(asks, version)]
    return [
        sample_of(group, position, 0.0)
        for group in groups
        for position, completion in enumerate(group.completions_G)
        if len(completion.token_ids)
    ]


async def _logprobs(trainer: TrainGroup, samples: Sequence[Sample]) -> list[FloatArray]:
    minibatch = build_minibatch(samples, trainer.packing)
    outputs = await trainer.outputs(minibatch)
    by_sample: dict[int, FloatArray] = {}
    for microbatches, values in zip(minibatch.microbatches_by_rank, outputs, strict=True):
        by_sample |= unpack(microbatches, values)
    return [by_sample[index] for index in range(len(samples))]
