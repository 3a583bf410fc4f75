"""A plan as text: plain characters, so that terminals and job logs show the same."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

from actors.plan.layout.memory import GIB, Footprint
from actors.plan.layout.plan import GROUPS, Device, Plan, Shapes
from conf.keys import as_yaml, keys_of
from conf.schema import Config, ModelConfig, PlacementConfig, RewardConfig
from rl.run.directory import RunDirectory

_WIDTH = 94
_NAMES = 32  # columns for the names of the actors on a device
_BAR = 20
_SHOWN_BYTES = GIB // 20


def describe(cfg: Config, plan: Plan, shapes: Shapes, num_faults: int = 0) -> list[str]:
    """Lines of the whole plan; `num_faults` of what is wrong beside it are shown elsewhere."""
    directory = RunDirectory.of(cfg).root
    return [
        f"plan of a run that would be written to {directory}",
        "",
        "configuration: what differs from the defaults (--cfg job shows all)",
        *_changed(cfg),
        "",
        *picture(cfg.placement, plan),
        "",
        "memory of one actor in GiB, estimated (docs/planning.md has the formulas)",
        *_footprints(cfg.model, cfg.reward, plan, shapes, made=cfg.loop.enabled),
        "",
        *_verdict(plan, num_faults),
    ]


def describe_ranks(cfg: Config, plan: Plan, model: str) -> list[str]:
    """Lines of the plan of a training: ranks alone, without engines."""
    footprint = plan.footprints["policy"]
    known = ["size unknown"] if footprint is None else [_sum(footprint)]
    hosted = [] if footprint is None else [f"in host memory: {_parts(footprint.host)}"]
    return [
        *picture(cfg.placement, plan),
        "",
        f"memory of one rank that trains {model} in {cfg.model.dtype}, in GiB, estimated",
        *(f"  {line}" for line in known + hosted),
        f"  microbatches of {cfg.policy.microbatch_tokens:,} tokens, lr {cfg.policy.lr:.1e}",
        "",
        *_verdict(plan, 0),
    ]


def _changed(cfg: Config) -> list[str]:
    """Keys whose value is not the schema's default, a line for each section."""
    sections: dict[str, list[str]] = {}
    for key in keys_of(Config):
        if key.path == "dry_run":
            continue
        value: object = cfg
        for name in key.path.split("."):
            value = getattr(value, name)
        if key.required or value != key.default:
            section, _, name = key.path.rpartition(".")
            shown = as_yaml(value) if value != {} else "{}"
            sections.setdefault(section, []).append(f"{name}={shown}")
    width = max(map(len, sections))
    return [f"  {name:<{width}}  {' '.join(values)}" for name, values in sections.items()]


def picture(place: PlacementConfig, plan: Plan) -> list[str]:
    """Nodes as boxes, devices as lines, with who sits on each."""
    shares = ", groups share devices and take turns" if place.colocate else ""
    lines = [
        f"placement {place.kind}: {len(plan.bundles)} actors, {place.strategy}{shares}",
        "(simulated: between equal nodes or devices Ray may choose otherwise)",
    ]
    cpus = {bundle.actor: bundle.cpus for bundle in plan.bundles}
    for index, machine in enumerate(plan.machines):
        here = [actor for actor, spot in plan.layout.spots.items() if spot.node == index]
        taken = sum(cpus[actor] for actor in here)
        title = f"node {index}{_ASSUMED[machine.assumed]}, {taken:g} of {machine.cpus:g} CPUs taken"
        lines.append(f"+- {title} ".ljust(_WIDTH - 1, "-") + "+")
        for device in plan.devices:
            if device.node == index:
                lines += [f"| {line:<{_WIDTH - 4}} |" for line in _device(device)]
        lines.append("+" + "-" * (_WIDTH - 2) + "+")
    return lines


_ASSUMED = {"all": " (assumed)", "memory": " (GPU memory assumed)", "nothing": ""}


def _device(device: Device) -> list[str]:
    """A line with what is taken, and as many lines as the names of the actors need."""
    names = textwrap.wrap(" + ".join(device.actors), _NAMES) or [
        "-" if device.gpu is not None else ""
    ]
    share = device.needed / device.capacity if device.capacity else 0.0
    bar = ("#" * min(_BAR, math.ceil(_BAR * share))).ljust(_BAR, ".")
    more = "" if device.complete or not device.needed else " and more"
    over = " OVER" if device.needed > device.capacity else ""
    sizes = f"{device.needed / GIB:.1f} of {device.capacity / GIB:.1f} GiB{more}{over}"
    first = f"{device.name:<7}{names[0]:<{_NAMES}} [{bar}] {sizes}"
    return [first, *(f"{'':<7}{line}" for line in names[1:])]


def _footprints(
    model: ModelConfig, reward: RewardConfig, plan: Plan, shapes: Shapes, *, made: bool
) -> list[str]:
    """A paragraph for each group: model, parts, their sum; `made`: the loop makes the models."""
    models = {"rollout": shapes.policy, "policy": shapes.policy, "reward": shapes.reward}
    judge = None if made else reward.model
    named = {"rollout": model.path, "policy": model.path, "reward": judge}
    dtypes = {"rollout": model.dtype, "policy": model.dtype, "reward": reward.dtype}
    lines: list[str] = []
    for group in GROUPS:
        footprint, shape = plan.footprints[group], models[group]
        if group == "reward" and not reward.uses_model:
            lines.append(f"  {group:<8} no model (reward.kind={reward.kind})")
            continue
        what = named[group] or "made by the loop, of the policy's shape"
        if footprint is None or shape is None:
            lines.append(f"  {group:<8} {what}: size unknown (no files here, none in its name)")
            continue
        size = f"{_number(shape.num_parameters)} parameters ({shape.source}), {dtypes[group]}"
        lines += [f"  {group:<8} {what}: {size}", f"  {'':<8} {_sum(footprint)}"]
        if footprint.host:
            lines.append(f"  {'':<8} in host memory: {_parts(footprint.host)}")
        if footprint.note:
            lines.append(f"  {'':<8} {footprint.note}")
        if not footprint.complete:
            lines.append(f"  {'':<8} its shape is unknown, so what depends on it is missing")
    return lines


def _sum(footprint: Footprint) -> str:
    parts = _parts({**footprint.held, **footprint.working})
    return f"{parts} = {footprint.total / GIB:.1f}"


def _parts(parts: Mapping[str, int]) -> str:
    shown = [f"{name} {size / GIB:.1f}" for name, size in parts.items() if size >= _SHOWN_BYTES]
    small = sum(size for size in parts.values() if size < _SHOWN_BYTES)
    return " + ".join([*shown, f"small parts {small / GIB:.2f}"] if small else shown)


def _number(count: int) -> str:
    """A count in millions or thousands of millions, as the names of models have it."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"


def _verdict(plan: Plan, num_faults: int) -> list[str]:
    if plan.misfits:
        return ["would not fit", *(f"  - {line}" for line in plan.misfits)]
    if num_faults:
        return ["the actors would fit, but the run cannot start:"]
    known = all(device.complete for device in plan.devices)
    return ["all of it fits" if known else "what is known of it fits; some sizes are unknown"]
