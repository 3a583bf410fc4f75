"""One arm of an ablation: `python launch/ablation.py label=NAME 'changes=["reward=execution"]'`.

Runs the RL of an experiment with other choices, for several seeds on one fleet. Each run is
a line of `output/runs.jsonl`; `table.md` there compares every arm run so far with that of
`beside`, seed by seed and problem by problem, and says whether a difference holds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.shipped import with_shipped_models
from conf.schema import ImportPath, RecipeName, key
from launch.common.arms import check_arms, draw_arms
from launch.common.cli import main_simple
from launch.common.compose import compose_config
from launch.common.overrides import forced_overrides

MOVED = {
    "policy": 'changes=["model.path=DIR"]',
    "reward_model": 'changes=["reward.model=DIR"]',
    "scale": 'changes=["algorithm.advantage_scale=NAME"]',
    "kl_coef": 'changes=["algorithm.kl_coef=NUMBER"]',
}


@dataclass(frozen=True, kw_only=True)
class AblationArgs:
    """What `launch/ablation.py` takes."""

    label: str = key("name of the arm in table and plot")
    experiment: str = key("experiment that the arm starts from", "quickstart")
    changes: tuple[str, ...] | None = key(
        'overrides of the experiment, as in ["recipe=grpo","reward=execution"]', None
    )
    exam: RecipeName | ImportPath | None = key(
        "recipe whose evaluation measures the arm, with the recipe_args of the experiment before "
        "the changes where that recipe is its own; null is that of the arm",
        None,
    )
    beside: str | None = key("arm that the others are compared with; null is the first one", None)
    num_steps: int = key("RL steps of each run", 60, ge=1)
    every: int = key("steps between evaluations; the last step is always measured", 30, ge=1)
    seeds: tuple[int, ...] = key("run seeds", (0, 1, 2), ge=0)
    output: str = key("directory of results", "outputs/ablation")


def exam_args(experiment: str, exam: str | None) -> Mapping[str, Any] | None:
    """Arguments of the exam: the same for all arms that start from an experiment.

    They are those of the experiment where the exam is its own recipe, else None: the defaults.
    """
    if exam is None:
        return None
    unchanged = with_shipped_models(compose_config([f"experiment={experiment}"]))
    return unchanged.recipe_args if unchanged.recipe == exam else None


def run(args: AblationArgs) -> None:
    """Run the arm, then draw what `runs.jsonl` holds, earlier arms included."""
    cfg = with_shipped_models(
        compose_config(
            [
                f"experiment={args.experiment}",
                f"++algorithm.num_steps={args.num_steps}",
                f"++evaluation.every={args.every}",
                *forced_overrides(args.changes or ()),
            ]
        )
    )
    measured_by = exam_args(args.experiment, args.exam)
    from actors.jobs.ablation import Arm, check_arm, run_arm  # noqa: PLC0415 - after the arguments are good
    from actors.plan.checks.inputs import check_inputs  # noqa: PLC0415

    output = Path(args.output)
    check_arms(output / "runs.jsonl", args.label, args.beside)
    check_inputs(cfg)
    arm = Arm(label=args.label, seeds=args.seeds, exam=args.exam, exam_args=measured_by)
    check_arm(cfg, arm)
    output.mkdir(parents=True, exist_ok=True)
    run_arm(cfg, arm, output / "runs.jsonl")
    draw_arms(output / "runs.jsonl", output, args.beside)


if __name__ == "__main__":
    sys.exit(main_simple(AblationArgs, run, moved=MOVED))
