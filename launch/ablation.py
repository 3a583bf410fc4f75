"""One arm of the ablation behind the recipe: `python launch/ablation.py label=NAME kl_coef=0`.

Runs the quickstart's RL with other choices, for several seeds on one fleet of engines. Each run is
a line of `output/runs.jsonl`; the Markdown table and the plot there show every arm run so far.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.shipped import with_shipped_models
from conf.schema import AdvantageScale, KlGradient, KlKind, key
from launch.common.arms import draw_arms
from launch.common.cli import main_simple
from launch.common.compose import compose_config


@dataclass(frozen=True, kw_only=True)
class AblationArgs:
    """What `launch/ablation.py` takes."""

    label: str = key("name of the arm in table and plot")
    policy: str = key("directory of the initial policy", "assets/minipy/policy")
    reward_model: str = key("directory of the reward model", "assets/minipy/rm")
    scale: AdvantageScale = key(
        "scale of advantages: divisor of (reward - group mean), or ranks in the group", "batch_std"
    )
    kl_coef: float = key("weight of the KL penalty", 0.1, ge=0)
    kl_kind: KlKind = key("estimator of the KL penalty", "k3")
    kl_gradient: KlGradient = key(
        "gradient of the KL penalty: of the estimator, or of its expectation", "estimator"
    )
    num_steps: int = key("RL steps of each run", 60, ge=1)
    every: int = key("steps between evaluations", 30, ge=1)
    seeds: tuple[int, ...] = key("run seeds", (0, 1, 2), ge=0)
    output: str = key("directory of results", "outputs/ablation")


def run(args: AblationArgs) -> None:
    """Run the arm, then draw what `runs.jsonl` holds, earlier arms included."""
    cfg = with_shipped_models(
        compose_config(
            [
                "experiment=quickstart",
                f"++model.path={args.policy}",
                f"++reward.model={args.reward_model}",
                f"++algorithm.advantage_scale={args.scale}",
                f"++algorithm.kl_coef={args.kl_coef}",
                f"++algorithm.kl_kind={args.kl_kind}",
                f"++algorithm.kl_gradient={args.kl_gradient}",
                f"++algorithm.num_steps={args.num_steps}",
                f"++evaluation.every={args.every}",
            ]
        )
    )
    from actors.jobs.ablation import run_arm  # noqa: PLC0415 - after the arguments are good
    from actors.plan.checks.inputs import check_inputs  # noqa: PLC0415

    check_inputs(cfg)
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    run_arm(cfg, args.label, args.seeds, output / "runs.jsonl")
    draw_arms(output / "runs.jsonl", output)


if __name__ == "__main__":
    sys.exit(main_simple(AblationArgs, run))
