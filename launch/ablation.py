"""The ablation behind the recipe: `python launch/ablation.py reward_models=[DIR,DIR]`.

Writes one JSON line per run, a Markdown table and a plot to `output`.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.schema import key
from launch.cli import compose_config, main_simple
from launch.train import with_shipped_models


@dataclass(frozen=True, kw_only=True)
class AblationArgs:
    """What `launch/ablation.py` takes."""

    reward_models: str = key("directories of reward models, separated by commas")
    policy: str | None = key("directory of the initial policy; null is the shipped one", None)
    seeds: str = key("run seeds, separated by commas", "0,1,2")
    scales: str = key("advantage scalings, separated by commas", "batch_std,group_std")
    kl_coefs: str = key("KL weights, separated by commas", "0.1,0")
    num_steps: int = key("RL steps of each run", 60, ge=1)
    every: int = key("steps between evaluations", 20, ge=1)
    output: str = key("directory of results", "outputs/ablation")


def run(args: AblationArgs) -> None:
    """Run the grid, then draw what `runs.jsonl` holds, earlier runs included."""
    cfg = with_shipped_models(
        compose_config(
            [
                "experiment=quickstart",
                f"algorithm.num_steps={args.num_steps}",
                f"evaluation.every={args.every}",
                *([] if args.policy is None else [f"model.path={args.policy}"]),
            ]
        )
    )
    from actors.ablation import Variant, run_ablation  # noqa: PLC0415 - after the arguments are good

    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    variants = [
        Variant(reward_model=model, advantage_scale=scale, kl_coef=float(kl))  # pyright: ignore[reportArgumentType]  # checked by the schema of the run
        for model in args.reward_models.split(",")
        for scale in args.scales.split(",")
        for kl in args.kl_coefs.split(",")
    ]
    seeds = [int(seed) for seed in args.seeds.split(",")]
    run_ablation(cfg, variants, seeds, output / "runs.jsonl")
    draw(output / "runs.jsonl", output)


def draw(runs: Path, output: Path) -> None:
    """Write `table.md` and `ablation.png`."""
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    curves: dict[str, dict[int, dict[int, float]]] = defaultdict(dict)
    for line in runs.read_text(encoding="ascii").splitlines():
        record = json.loads(line)
        curve = {int(step): value for step, value in record["pass@1"].items()}
        curves[record["variant"]][record["seed"]] = curve
    steps = sorted({step for runs_of in curves.values() for c in runs_of.values() for step in c})
    rows = [
        "| variant | seeds | " + " | ".join(f"step {step}" for step in steps) + " |",
        "|---|---|" + "---|" * len(steps),
    ]
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for variant, by_seed in sorted(curves.items()):
        cells: list[str] = []
        means: list[float] = []
        for step in steps:
            values = [curve[step] for curve in by_seed.values() if step in curve]
            mean = sum(values) / len(values)
            means.append(mean)
            cells.append(f"{mean:.3f} ({min(values):.3f}-{max(values):.3f})")
        rows.append(f"| {variant} | {len(by_seed)} | " + " | ".join(cells) + " |")
        (line,) = axes.plot(steps, means, marker="o", label=variant)
        for curve in by_seed.values():
            axes.plot(list(curve), list(curve.values()), color=line.get_color(), alpha=0.25)
    axes.set_xlabel("RL step")
    axes.set_ylabel("held-out pass@1")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(output / "ablation.png", dpi=130)
    (output / "table.md").write_text("\n".join(rows) + "\n", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main_simple(AblationArgs, run))
