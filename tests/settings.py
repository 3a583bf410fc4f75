"""Settings for tests of every layer: the one place where a test below the commands composes them.

A test of an actor or a judge asks for the configuration of a run as the command line would give
it. How the YAML files are put together is the business of the commands, and stays behind this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from actors.plan.shipped import with_shipped_models
from conf.commands.benchmark import DataArgs, EvaluationArgs
from conf.commands.best_of_n import BestOfNArgs, JudgeArgs
from conf.schema import Config, RequestConfig, SandboxConfig
from launch.common.compose import compose_config
from launch.common.overrides import forced_overrides

ASSETS = Path(__file__).resolve().parents[1] / "assets/minipy"
POLICY, REWARD_MODEL = ASSETS / "policy", ASSETS / "rm"
Evaluation = TypeVar("Evaluation", bound=EvaluationArgs)


def run_config(overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run with these overrides, written as for `launch/train.py`."""
    return compose_config(forced_overrides(overrides))


def shipped_config(overrides: Sequence[str] = ()) -> Config:
    """The same, with the shipped models found and texts read."""
    return with_shipped_models(run_config(overrides))


def evaluation_args(schema: type[Evaluation], problems: Path, **changes: Any) -> Evaluation:
    """Arguments of an evaluation of the shipped policy on a canonical file."""
    args = schema(
        model=str(POLICY),
        benchmark="parquet",
        output="o.json",
        data=DataArgs(path=str(problems)),
        sandbox=SandboxConfig(),
    )
    return replace(args, **changes)


def best_of_n_args(output: Path, **changes: Any) -> BestOfNArgs:
    """Arguments of a small best-of-N of the shipped models, the policy being the tester too."""
    args = BestOfNArgs(
        policy=str(POLICY),
        reward_model=str(REWARD_MODEL),
        tester=str(POLICY),
        output=str(output),
        data=DataArgs(),
        sandbox=SandboxConfig(),
        judge=JudgeArgs(request=RequestConfig()),
        num_samples=2,
        num_tests=2,
    )
    return replace(args, **changes)
