"""Predict the time of a step: `python launch/cost.py experiment=qwen3_8b_codescaler devices=64`.

Phases, what overlaps, which part is the bottleneck, and how long each group waits, for the layout
of the experiment or for the fastest one of so many GPUs. Rates are those that were measured on two
CPU cores or, for GPUs, assumptions from data sheets and published figures; yours go into `rates`.
`stages=true`: GPU hours of the paper's recipe. `plot=FILE.png`: the step over group size, length,
engines and shards. Nothing is started.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.cost.case import Case, case_of
from actors.plan.cost.stages import recipe_stages
from actors.plan.cost.step import savings
from actors.plan.shipped import with_shipped_models
from conf.schema import key
from launch.common.cli import main_simple
from launch.common.compose import compose_config
from launch.common.cost_plot import Variations, draw
from launch.common.overrides import forced_overrides
from rl.base.console import Console
from rl.base.outputs import check_output

ROLLOUTS = "qwen3_8b_rollouts"  # of the paper's pairs
GROUPS = ("rollout", "reward", "policy")


@dataclass(frozen=True, kw_only=True)
class TextArgs:
    """What is known of a step's texts; null is the default of the hardware."""

    prompt_tokens: float | None = key("tokens of a prompt, mean", None, gt=0)
    answer_tokens: float | None = key("tokens of a completion, mean", None, gt=0)
    longest_tokens: float | None = key("tokens of the longest completion of a step", None, gt=0)
    code_tokens: float | None = key("tokens of the program in a completion", None, gt=0)
    valid_share: float | None = key("share of completions that hold a program", None, ge=0, le=1)
    shared_share: float | None = key(
        "share of the update's tokens that prefix trees leave out", None, ge=0, le=1
    )


@dataclass(frozen=True, kw_only=True)
class RateArgs:
    """What is known of single actors; null is what was measured or assumed."""

    decode_step_s: float | None = key("seconds of a decode step of an engine", None, gt=0)
    rollout_tokens_per_s: float | None = key("tokens/s of a full engine", None, gt=0)
    prefill_tokens_per_s: float | None = key("prompt tokens/s of an engine", None, gt=0)
    scores_per_s: float | None = key("scores/s of a shard", None, gt=0)
    update_tokens_per_s: float | None = key("trained tokens/s of a rank", None, gt=0)
    update_latency_s: float | None = key(
        "seconds of an optimizer step beside its tokens", None, ge=0
    )
    publish_latency_s: float | None = key("seconds of a publication beside its bytes", None, ge=0)
    publish_gb_per_s: float | None = key("GB/s of a publication", None, gt=0)
    driver_ms: float | None = key("milliseconds of the driver for a completion", None, ge=0)


@dataclass(frozen=True, kw_only=True)
class CostArgs:
    """What `launch/cost.py` takes."""

    experiment: str = key("experiment whose step is predicted", "qwen3_8b_codescaler")
    changes: tuple[str, ...] | None = key(
        'overrides of the experiment, as in ["algorithm.group_size=16"]', None
    )
    devices: int | None = key(
        "GPUs to divide among the groups as fast as can be; null is the layout of the experiment",
        None,
        ge=1,
    )
    texts: TextArgs = field(default_factory=TextArgs, metadata={"doc": "texts of a step"})
    rates: RateArgs = field(default_factory=RateArgs, metadata={"doc": "rates of single actors"})
    stages: bool = key("GPU hours of the paper's recipe as well", default=False)
    plot: str | None = key("picture to write", None)


def run(args: CostArgs) -> None:
    """Predict and print."""
    target = None if args.plot is None else check_output(args.plot, "FILE.png", "plot")
    case = _case(args, args.experiment, args.changes or ())
    console = Console()
    title = f"a step of {args.experiment}: {_layout(case)}; rates: {case.source}"
    console.table(title, [*_phases(case), *_groups(case)])
    if args.stages:
        rollouts = _case(args, ROLLOUTS, ())
        steps = compose_config([f"experiment={args.experiment}"]).algorithm.num_steps
        found = recipe_stages(rollouts, case, steps)
        rows = [(stage.name, f"{stage.gpu_hours:,.0f}", stage.basis) for stage in found]
        console.table("GPU hours of the recipe", rows)
    if target is not None:
        draw(case, _variations(args, case), target)
        console.say(f"plot      {target}")


def _case(
    args: CostArgs, experiment: str, changes: Sequence[str], length: float | None = None
) -> Case:
    cfg = with_shipped_models(
        compose_config([f"experiment={experiment}", *forced_overrides(changes)])
    )
    texts = _given(args.texts)
    if length is not None:
        texts["answer_tokens"] = length
    return case_of(cfg, texts, _given(args.rates), args.devices)


def _variations(args: CostArgs, case: Case) -> Variations:
    """The same run with other groups and lengths, on as many actors."""
    sizes, changes = (2, 4, 8, 16, 32), args.changes or ()
    texts = case.work.lengths
    lengths = [round(texts.answer_tokens * share) for share in (0.125, 0.25, 0.5, 1, 2)]
    lengths = [length for length in lengths if length <= texts.longest_tokens]
    groups = {
        size: _case(args, args.experiment, [*changes, f"algorithm.group_size={size}"])
        for size in sizes
    }
    of_length = {length: _case(args, args.experiment, changes, float(length)) for length in lengths}
    return Variations(
        groups={size: other.laid_out_as(case) for size, other in groups.items()},
        lengths={length: other.laid_out_as(case) for length, other in of_length.items()},
    )


def _given(args: TextArgs | RateArgs) -> dict[str, float]:
    values = {one.name: getattr(args, one.name) for one in fields(args)}
    return {name: value for name, value in values.items() if value is not None}


def _layout(case: Case) -> str:
    layout = case.layout
    numbers = {"engine": layout.engines, "shard": layout.shards, "rank": layout.ranks}
    parts = ", ".join(f"{num} {name}{'' if num == 1 else 's'}" for name, num in numbers.items())
    return f"{parts} on shared devices" if layout.takes_turns else parts


def _phases(case: Case) -> list[tuple[str, str, str]]:
    cost = case.cost()
    saved = savings(case.rates, case.work, case.layout)
    seconds = {
        "rollout": (cost.rollout_s, ""),
        "score": (cost.tail_s, f"after the last completion; {cost.score_s:,.1f} s of work"),
        "driver": (cost.driver_s, ""),
        "update": (cost.update_s, ""),
        "publish": (cost.publish_s, ""),
    }
    bottleneck = max(saved, key=lambda part: saved[part])
    rows = [("step", _seconds(cost.step_s), f"bottleneck: {bottleneck}")]
    for part, (took_s, remark) in seconds.items():
        gain = f"saves {_seconds(saved[part])} if it took no time"
        rows.append((f"- {part}", _seconds(took_s), f"{gain}; {remark}" if remark else gain))
    return rows


def _groups(case: Case) -> list[tuple[str, str, str]]:
    idle = case.cost().idle
    return [(f"{group} waits", f"{idle[group]:.0%}", "of the step") for group in GROUPS]


def _seconds(value: float) -> str:
    return f"{value:,.0f} s" if value >= 100 else f"{value:.2f} s"


if __name__ == "__main__":
    sys.exit(main_simple(CostArgs, run))
