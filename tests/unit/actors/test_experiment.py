"""The figures at the end say which judge they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.evaluation import Evaluation
from actors.experiment import show_summary, summarise
from actors.rl_run import RlResult
from launch.cli import compose_config
from launch.train import with_shipped_models
from rl.console import Console
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


def summary_of(*overrides: str) -> dict[str, Any]:
    judged = make_judged(make_group(make_prompts(1)[0], 8), [float(i) for i in range(8)])
    evaluation = Evaluation(groups_P=(judged,), passed_PG=((False, True) * 4,), num_executed=8)
    result = RlResult(
        base=evaluation,
        final=evaluation,
        num_steps=60,
        valid_rate_first=0.5,
        valid_rate_last=1.0,
        executed_for_reward=7,
        executed_for_evaluation=16,
        partition=[],
        start_s=1.0,
        probe={"probe": None, "alarm": None, "programs_executed_for_probe": 0},
    )
    return summarise(with_shipped_models(compose_config(list(overrides))), result, {})


@pytest.mark.parametrize(
    ("override", "kind", "tests", "row"),
    [
        ("reward=codescaler", "rm", None, "a reward model; no tests"),
        ("reward=execution", "execution", "binary", "tests, binary; no reward model"),
        ("reward=hybrid", "hybrid", "binary", "a reward model where there are none"),
    ],
)
def test_the_summary_and_its_table_name_the_reward(capsys, override, kind, tests, row):
    summary = summary_of(override)
    assert (summary["reward"], summary["reward_execution"]) == (kind, tests)
    assert (summary["reward_model"] is None) == (kind == "execution")
    assert (summary["rm_pair_accuracy"] is None) == (kind == "execution")
    show_summary(Console(), summary | {"wall_s": 1.0}, Path("run"))
    table = capsys.readouterr().out
    assert row in table
    assert "chosen by the RM" in table if kind == "rm" else "chosen by tests" in table
