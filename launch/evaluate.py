"""Evaluate a policy: `python launch/evaluate.py model=DIR benchmark=NAME output=OUT.json`.

vLLM rollout actors sample, every program is run against the tests of its problem, and OUT.json has
pass@k and avg@n with intervals. Every sample is kept beside it; the same command resumes.
docs/evaluation.md describes keys and files.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.evaluation import check_arguments, check_model, configure, read_benchmark
from conf.commands.benchmark import EvaluationArgs
from conf.schema import key
from launch.common.cli import main_simple
from rl.problems.datasets import SOURCES


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs(EvaluationArgs):
    """What `launch/evaluate.py` takes."""

    benchmark: str = key(
        f"minipy (its held-out problems), {', '.join(SOURCES)}, or parquet for canonical rows"
    )


def run(args: EvaluateArgs) -> None:
    """Check what can be checked without an engine, then evaluate."""
    # Each check is slower than the one before, so that bad input is refused at once.
    ks = check_arguments(args)
    max_prompt_tokens, max_tokens = check_model(args)
    problems = read_benchmark(args)
    cfg = configure(args, max_prompt_tokens, max_tokens)
    from actors.jobs.benchmark import plan_benchmark, run_benchmark  # noqa: PLC0415 - heavy
    from actors.plan.checks.rehearsal import rehearse  # noqa: PLC0415

    benchmark = plan_benchmark(args, cfg.model, problems, ks)
    rehearse(args.model, "model", "lm", num_tokens=max_prompt_tokens + max_tokens)
    run_benchmark(cfg, benchmark, Path(args.output))


if __name__ == "__main__":
    sys.exit(main_simple(EvaluateArgs, run))
