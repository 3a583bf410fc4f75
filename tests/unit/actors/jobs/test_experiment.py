"""The figures at the end say which judge they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.jobs.experiment import show_summary, summarise
from actors.stages.evaluation import Evaluation
from actors.stages.rl_run import RlResult
from rl.base.console import Console
from tests.settings import shipped_config
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


NO_PROBE = {"probe": None, "alarm": None, "programs_executed_for_probe": 0}


def summary_of(*overrides: str, probe: dict[str, Any] = NO_PROBE) -> dict[str, Any]:
    group = make_group(make_prompts(1)[0], 8)
    judged = make_judged(group, [float(i) for i in range(8)], (False, True) * 4)
    evaluation = Evaluation(groups_P=(judged,), num_executed=8)
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
        probe=probe,
    )
    return summarise(shipped_config(list(overrides)), result, {})


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


@pytest.mark.parametrize(
    ("fired_at", "cells"),
    [([], ["never", "held"]), ([44, 60], ["step 44", "probe fell"])],
)
def test_the_table_says_whether_the_alarm_fired_and_what_the_probe_cost(capsys, fired_at, cells):
    probe = {"probe": {"num_probes": 13, "time_share": 0.08}, "alarm": {"fired_at": fired_at}}
    summary = summary_of(probe=probe | {"programs_executed_for_probe": 9})
    assert summary["programs_executed_for_probe"] == 9
    show_summary(Console(), summary | {"wall_s": 1.0}, Path("run"))
    table = capsys.readouterr().out
    assert all(cell in table for cell in [*cells, "13 probes, 8% of the time"])


def test_without_a_probe_the_table_says_that_nobody_watched(capsys):
    show_summary(Console(), summary_of() | {"wall_s": 1.0}, Path("run"))
    assert "no probe" in capsys.readouterr().out
