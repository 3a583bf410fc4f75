"""Arms of an ablation are compared seed by seed and problem by problem."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conf.errors import DataError, UserError
from launch.common.arms import check_arms, draw_arms
from rl.report.arms import (
    ArmRun,
    curves_table,
    differences,
    interval,
    read_runs,
    verdicts_table,
)
from rl.run.evaluate import Float64Array

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


Noise = tuple[float, float, float]  # of a seed, of a problem in all seeds, of both


def gaps(noise: Noise, seed: int, num_seeds: int = 5, num_problems: int = 60) -> Float64Array:
    """Differences of two arms that are equal over all seeds and problems [S, P]."""
    rng = np.random.default_rng(seed)
    of_seed, of_problem, of_both = noise
    return (
        rng.normal(0, of_seed, (num_seeds, 1))
        + rng.normal(0, of_problem, (1, num_problems))
        + rng.normal(0, of_both, (num_seeds, num_problems))
    )


@pytest.mark.parametrize(
    ("noise", "least"),
    [
        ((0.0, 0.2, 0.001), 4),  # problems alone, the same in every seed
        ((0.05, 0.0, 0.001), 2),  # seeds alone
        ((0.02, 0.1, 0.2), 0),
        ((0.0, 0.0, 0.2), 0),  # noise of both is counted more than once: on the safe side
    ],
)
def test_equal_arms_are_told_apart_in_about_one_comparison_of_twenty(
    noise: Noise, least: int
) -> None:
    excluded = 0
    for number in range(200):
        low, high = interval(gaps(noise, number))
        excluded += low > 0 or high < 0
    assert least <= excluded <= 18  # of 200; 10 are expected, 18 are 2.6 standard deviations above


def test_what_is_common_to_a_problem_in_all_seeds_counts_once() -> None:
    rows_P = np.random.default_rng(0).normal(0, 0.1, 60)
    low, high = interval(np.tile(rows_P, (5, 1)))
    assert high - low == pytest.approx(2 * 1.96 * rows_P.std() / 60**0.5, rel=0.1)
    same = interval(np.full((5, 60), 0.125))
    assert same == pytest.approx((0.125, 0.125))


def test_seeds_with_problems_of_their_own_are_independent() -> None:
    apart_SP = np.full((5, 300), np.nan)
    for seed in range(5):
        apart_SP[seed, 60 * seed : 60 * (seed + 1)] = gaps((0.0, 0.2, 0.0), seed, 1)[0]
    means_S = np.nanmean(apart_SP, axis=1)
    low, high = interval(apart_SP)
    error = 0.2 / 300**0.5
    assert low < means_S.mean() < high
    assert 2 * 1.96 * error * 0.8 < high - low < 2 * 2.78 * error * 1.4


def test_runs_are_compared_on_the_problems_that_both_have() -> None:
    base, ours = arm("base", 0.0, range(5)), arm("better", 0.1, range(5))
    ours[0] = replace(ours[0], passed={**ours[0].passed, "only here": 1.0})
    assert differences(ours, base)[0].mean == pytest.approx(0.1, abs=0.01)


def test_nothing_is_claimed_below_two_points_or_five_seeds() -> None:
    base = arm("base", 0.0, range(5))
    assert differences(arm("hardly", 0.015, range(5)), base)[0].verdict == "not shown"
    assert differences(arm("better", 0.2, range(4)), base)[0].verdict == "too few seeds"
    assert differences(arm("better", 0.2, range(5, 9)), base) == []


def test_a_figure_of_other_sign_in_one_seed_is_not_shown() -> None:
    base, ours = arm("base", 0.0, range(5)), arm("better", 0.3, range(4))
    (_, mark) = differences([*ours, *arm("better", -0.01, [4])], base)
    assert mark.verdict == "not shown"


def with_shares(runs: Sequence[ArmRun]) -> list[ArmRun]:
    """The same, where the runs say what each problem does to the mark."""
    return [replace(run, shares={"tests": run.passed}) for run in runs]


def test_a_mark_whose_problems_are_known_is_paired_over_them_too() -> None:
    ours, base = with_shares(arm("better", 0.05, range(5))), with_shares(arm("base", 0.0, range(5)))
    passed, mark = differences(ours, base)
    assert (mark.figure, mark.by_problem) == ("tests", True)
    assert (mark.mean, mark.low, mark.high) == (passed.mean, passed.low, passed.high)
    base[0] = replace(base[0], shares={})  # a run of an earlier version
    (_, mark) = differences(ours, base)
    assert not mark.by_problem
    gaps_S = [a.marks["tests"] - b.marks["tests"] for a, b in zip(ours, base, strict=True)]
    assert (mark.low, mark.high) == (min(gaps_S), max(gaps_S))


def test_the_table_says_which_interval_is_the_range_and_what_arms_cost(tmp_path: Path) -> None:
    runs = tmp_path / "runs.jsonl"
    spent = [
        replace(run, sampled_tokens=1000 * (run.seed + 1), optimizer_steps=16)
        for run in with_shares(arm("base", 0.0, range(2)))
    ]
    write(runs, spent)
    write(runs, arm("old", 0.1, range(2)))
    arms = read_runs(runs)
    assert arms["base"] == spent
    *_, passed, mark = verdicts_table(arms, "base").splitlines()
    assert "*range*" in mark and "*range*" not in passed
    header, _, base, old = curves_table(arms).splitlines()
    assert header.startswith("| arm | seeds | sampled tokens of a run | optimizer steps | step 0 |")
    assert base.startswith("| base | 2 | 1,500 (1,000 to 2,000) | 16 | 0.500")
    assert old.startswith("| old | 2 | - | - | 0.500")


def write(path: Path, runs: Sequence[ArmRun]) -> None:
    with path.open("a") as file:
        for run in runs:
            line: dict[str, object] = {
                "label": run.label,
                "seed": run.seed,
                "pass@1": run.pass_at_1,
                "passed": run.passed,
                "reward": {},
                "marks": {0: {}, 10: run.marks},
            }
            if run.sampled_tokens is not None:  # earlier versions wrote none of these
                line["shares"] = {name: list(v.values()) for name, v in run.shares.items()}
                line["sampled_tokens"] = run.sampled_tokens
                line["optimizer_steps"] = run.optimizer_steps
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
