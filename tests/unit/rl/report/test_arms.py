"""Arms of an ablation are compared seed by seed and problem by problem."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from conf.errors import DataError, UserError
from launch.common.arms import check_arms, draw_arms
from rl.report.arms import ArmRun, differences, read_runs, verdicts_table

pytestmark = pytest.mark.unit


def arm(label: str, shift: float, seeds: Sequence[int], num_problems: int = 60) -> list[ArmRun]:
    """Runs whose problems are `shift` easier than those of shift 0, with the same noise."""
    runs: list[ArmRun] = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        hard_P = rng.random(num_problems)
        noise_P = np.random.default_rng([seed, len(label)]).normal(0, 0.02, num_problems)
        passed = {f"p{i}": float(hard_P[i] + shift + noise_P[i]) for i in range(num_problems)}
        mean = float(np.mean(list(passed.values())))
        runs.append(
            ArmRun(
                label=label,
                seed=seed,
                pass_at_1={0: 0.5, 10: mean},
                passed=passed,
                marks={"tests": mean, "own": 1.0} if label == "base" else {"tests": mean},
            )
        )
    return runs


def test_pairing_finds_a_difference_that_the_spread_of_problems_hides() -> None:
    ours, theirs = arm("better", 0.05, range(5)), arm("base", 0.0, range(5))
    passed, mark = differences(ours, theirs)
    assert (passed.figure, passed.num_seeds, passed.verdict) == ("pass@1", 5, "holds")
    assert passed.low < 0.05 < passed.high
    assert passed.high - passed.low < 0.03  # the problems alone spread by 0.29
    assert (mark.figure, mark.verdict) == ("tests", "holds")
    assert differences(theirs, ours)[0].verdict == "refuted"


def test_nothing_is_claimed_below_two_points_or_five_seeds() -> None:
    base = arm("base", 0.0, range(5))
    assert differences(arm("hardly", 0.015, range(5)), base)[0].verdict == "not shown"
    assert differences(arm("better", 0.2, range(4)), base)[0].verdict == "too few seeds"
    assert differences(arm("better", 0.2, range(5, 9)), base) == []


def test_a_figure_of_other_sign_in_one_seed_is_not_shown() -> None:
    base, ours = arm("base", 0.0, range(5)), arm("better", 0.3, range(4))
    (_, mark) = differences([*ours, *arm("better", -0.01, [4])], base)
    assert mark.verdict == "not shown"


def write(path: Path, runs: Sequence[ArmRun]) -> None:
    with path.open("a") as file:
        for run in runs:
            line = {
                "label": run.label,
                "seed": run.seed,
                "pass@1": run.pass_at_1,
                "passed": run.passed,
                "reward": {},
                "marks": {0: {}, 10: run.marks},
            }
            file.write(json.dumps(line) + "\n")


def test_the_table_compares_every_arm_with_one(tmp_path: Path) -> None:
    runs = tmp_path / "runs.jsonl"
    write(runs, arm("base", 0.0, range(5)))
    write(runs, arm("better", 0.5, [0]))  # run again below
    write(runs, arm("better", 0.1, range(5)))
    arms = read_runs(runs)
    assert [run.seed for run in arms["better"]] == list(range(5))
    first, _, row, *_ = verdicts_table(arms, "base").splitlines()
    assert first.startswith("| arm, beside base |")
    assert row.startswith("| better | pass@1 | 5 | +0.1") and row.endswith("| holds |")
    draw_arms(runs, tmp_path, None)
    assert row in (tmp_path / "table.md").read_text()
    assert (tmp_path / "ablation.png").stat().st_size > 1000


def test_an_arm_that_was_not_run_is_refused_before_anything_starts(tmp_path: Path) -> None:
    runs = tmp_path / "runs.jsonl"
    write(runs, arm("base", 0.0, [0]))
    check_arms(runs, "new", "base")
    check_arms(runs, "new", "new")
    with pytest.raises(UserError, match=r"beside: 'bas' is no arm of .*; it has 'base'"):
        check_arms(runs, "new", "bas")


def test_a_run_of_an_earlier_version_is_refused_by_its_line(tmp_path: Path) -> None:
    runs = tmp_path / "runs.jsonl"
    runs.write_text('{"label": "old", "seed": 0, "pass@1": {"0": 0.5}, "marks": {}}\n')
    with pytest.raises(DataError, match=r"runs\.jsonl:1: passed: is missing"):
        check_arms(runs, "new", None)
