"""A run as the prediction of its steps sees it: rates, work and layout of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from actors.plan.cost.parts import (
    MINIPY_LENGTHS,
    TWO_CORES,
    Layout,
    Lengths,
    Rates,
    Work,
    engine_slots,
    h100_rates,
)
from actors.plan.cost.step import StepCost, fastest, predict, splits
from actors.plan.layout.dry_run import model_shapes
from actors.plan.layout.memory import DTYPE_BYTES
from actors.plan.layout.plan import Shapes
from conf.errors import UserError
from conf.schema import Config

_PROGRAM_S = 5.0  # CPU seconds of a program with all its tests: assumed
_MINIPY = 5_000_000  # parameters: the rates of two cores are those of such models


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one prediction is of."""

    rates: Rates
    work: Work
    layout: Layout
    devices: int
    source: str  # of the rates, in words

    def cost(self, layout: Layout | None = None) -> StepCost:
        """The time of a step, in the layout of the case or in another."""
        return predict(self.rates, self.work, layout or self.layout)

    def laid_out_as(self, other: Case) -> Case:
        """The same work on as many actors as another case has."""
        return replace(self, layout=replace(other.layout, slots=self.layout.slots))


def case_of(
    cfg: Config, lengths: Mapping[str, float], rates: Mapping[str, float], devices: int | None
) -> Case:
    """The case of a configuration, with what is known better than its defaults.

    `devices`: the fastest layout of so many GPUs in place of the configured one.

    Raises:
        UserError: for what cannot be predicted.
    """
    if cfg.recipe != "grpo":
        raise UserError(f"recipe: {cfg.recipe} is not predicted, only grpo is")
    shapes = model_shapes(cfg.model.path, cfg.reward.model, made=cfg.loop.enabled)
    on_gpu = cfg.placement.device == "cuda"
    if devices is not None and not on_gpu:
        raise UserError(f"devices: {cfg.experiment} runs on a CPU; leave it out")
    work = _work(cfg, shapes, replace(_lengths(cfg, on_gpu=on_gpu), **lengths))
    found = replace(_rates(cfg, shapes, work, rates, on_gpu=on_gpu), **rates)
    layout = _layout(cfg, shapes, work, on_gpu=on_gpu)
    case = Case(
        rates=found,
        work=work,
        layout=layout,
        devices=_num_devices(cfg, layout),
        source=("H100, assumed" if on_gpu else "two CPU cores, measured")
        + (", but for those given" if rates else ""),
    )
    return case if devices is None else _on(case, cfg, devices)


def _on(case: Case, cfg: Config, devices: int) -> Case:
    found = splits(
        devices,
        case.layout,
        cfg.policy.ranks,
        per_engine=cfg.rollout.tensor_parallel,
        per_shard=_per_shard(cfg),
    )
    layout = fastest(found, lambda layout: case.cost(layout).step_s)
    if layout is None:
        raise UserError(
            f"devices: {devices} are too few for {cfg.policy.ranks} ranks (policy.ranks), an "
            "engine and a shard; give more, or policy.ranks=N"
        )
    return replace(case, layout=layout, devices=devices)


def _per_shard(cfg: Config) -> int:
    return cfg.reward.tensor_parallel if cfg.reward.model is not None else 0


def _num_devices(cfg: Config, layout: Layout) -> int:
    if layout.takes_turns:
        return max(layout.engines, layout.shards, layout.ranks)
    engines = layout.engines * cfg.rollout.tensor_parallel
    return engines + layout.shards * _per_shard(cfg) + layout.ranks


def _lengths(cfg: Config, *, on_gpu: bool) -> Lengths:
    if not on_gpu:
        return MINIPY_LENGTHS
    return Lengths(longest_tokens=float(cfg.model.max_completion_tokens))


def _work(cfg: Config, shapes: Shapes, lengths: Lengths) -> Work:
    rule = cfg.algorithm
    if shapes.policy is None:
        raise UserError(
            f"model.path: nothing tells the size of {cfg.model.path}; give a directory with its "
            "config.json"
        )
    if lengths.answer_tokens > lengths.longest_tokens:
        raise UserError(
            f"texts.answer_tokens: {lengths.answer_tokens:g} is above the longest, "
            f"{lengths.longest_tokens:g}; give a smaller one, or texts.longest_tokens"
        )
    old = rule.minibatches_per_step > 1 or rule.max_staleness > 0
    size = DTYPE_BYTES[cfg.model.dtype]
    return Work(
        prompts=rule.prompts_per_step,
        group_size=rule.group_size,
        lengths=lengths,
        updates=rule.minibatches_per_step,
        forward_passes=int(old) + int(rule.kl_coef > 0),
        weight_bytes=float(size * shapes.policy.num_parameters),
    )


def _rates(
    cfg: Config, shapes: Shapes, work: Work, given: Mapping[str, float], *, on_gpu: bool
) -> Rates:
    assert shapes.policy is not None
    if not on_gpu:
        unknown = [f"rates.{one.name}" for one in fields(Rates) if one.name not in given]
        if shapes.policy.num_parameters > _MINIPY and unknown:
            raise UserError(
                f"model.path: {cfg.model.path} has {shapes.policy.num_parameters / 1e6:.0f} M "
                "parameters; on a CPU only models of minipy's size were measured: give "
                f"{', '.join(unknown)}"
            )
        return TWO_CORES
    checkpoints = cfg.policy.gradient_checkpointing
    rates = h100_rates(shapes.policy, shapes.reward, work, checkpoints=checkpoints)
    if cfg.reward.model is not None:
        return rates
    cores = cfg.placement.node.cpus * cfg.placement.num_nodes
    return replace(rates, scores_per_s=cores / _PROGRAM_S)


def _layout(cfg: Config, shapes: Shapes, work: Work, *, on_gpu: bool) -> Layout:
    assert shapes.policy is not None
    judged_by_model = cfg.reward.model is not None
    slots = engine_slots(cfg, shapes.policy, work.lengths) if on_gpu else cfg.rollout.max_num_seqs
    return Layout(
        engines=cfg.rollout.engines,
        shards=cfg.reward.shards if judged_by_model else 1,
        ranks=cfg.policy.ranks,
        slots=slots,
        takes_turns=cfg.placement.colocate or not on_gpu,
        staleness=cfg.algorithm.max_staleness,
    )
