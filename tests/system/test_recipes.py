"""Recipes on real engines: one command each, and what the run leaves behind."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rl.metrics import read_metrics
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import read_rollouts
from tests.system.forks import run_command

pytestmark = pytest.mark.system

Train = Callable[..., RunDirectory]
SMALL = (
    *("algorithm.num_steps=3", "algorithm.prompts_per_step=4", "algorithm.group_size=4"),
    *("data.num_train=32", "data.num_eval=4", "evaluation.num_samples=4", "policy.ranks=1"),
)


@pytest.fixture
def train(tmp_path: Path, shared_ray: dict[str, str]) -> Train:
    """Trains a small run, and gives its directory."""

    def trained(*overrides: str) -> RunDirectory:
        given = (f"output_dir={tmp_path}", *SMALL, *overrides)
        done = run_command("launch/train.py", *given, env=shared_ray)
        assert done.returncode == 0, done.stdout + done.stderr
        (root,) = tmp_path.glob("*/run")
        return RunDirectory(root)

    return trained


def test_cure_samples_programs_and_tests_and_runs_each_on_the_other(train: Train) -> None:
    run = train("experiment=recipe_cure", "recipe_args.num_tests=4")
    rows = read_rollouts(run.rollout_file(RolloutFolder.TRAINING, 3))
    assert [row.task for row in rows] == (["code"] * 4 + ["test"] * 4) * 4
    tests = [row for row in rows if row.task == "test"]
    assert {row.judge for row in tests} == {"matrix"}
    assert any(row.code.startswith("assert f(") for row in tests)
    assert {row.problem for row in tests} == {row.prompt_id for row in rows if row.task == "code"}
    assert {len(row.passed_by or "") for row in tests if row.code} == {4}  # programs
    assert {row.passed_by for row in tests if not row.code} <= {None}
    assert {row.reward for row in tests if not row.code} <= {-1.0, 0.0}
    steps = read_metrics(run.metrics)
    assert all(0 < step["task/test/readable"] <= 1 for step in steps)
    assert all(step["reward/exec_share"] == 1 for step in steps)  # of the groups of programs
    summary = json.loads(run.summary.read_text())
    assert set(summary["base_marks"]) == set(summary["final_marks"])
    assert {"eval/test_right", "eval/best_of_by_tests"} <= set(summary["final_marks"])


def test_codrlplus_asks_what_failed_programs_do_and_keeps_them_in_its_checkpoint(
    train: Train,
) -> None:
    run = train("experiment=recipe_codrlplus", "checkpoint.every=3")
    steps = read_metrics(run.metrics)
    assert steps[0]["task/trace/num_groups"] == 0
    assert steps[-1]["task/trace/num_groups"] == 3  # of 7
    assert steps[-1]["task/trace/num_kept"] >= 3
    (state,) = run.checkpoints.glob("*/recipe.json")
    traces = json.loads(state.read_text())["3"]["traces"]
    assert len(traces) > steps[-1]["task/trace/num_kept"]
    assert {one["step"] for one in traces} == {1, 2, 3}
    assert "eval/trace_right" in json.loads(run.summary.read_text())["final_marks"]


def test_sft_on_given_answers_samples_nothing_in_a_step_and_learns_their_tokens(
    train: Train,
) -> None:
    run = train("experiment=recipe_sft", "recipe_args.batch=8", "checkpoint.every=3")
    steps = read_metrics(run.metrics)
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert all(step["warm/loss"] > 0 and step["policy/grad_norm"] > 0 for step in steps)
    assert not any("reward/mean" in step or "time/rollout_s" in step for step in steps)
    assert not run.rollout_file(RolloutFolder.TRAINING, 3).exists()
    summary = json.loads(run.summary.read_text())
    assert summary["programs_executed_for_reward"] == 0
    assert 0 < summary["base_pass@1"] < 1 and 0 < summary["final_pass@1"] <= 1


def test_dpo_on_given_pairs_samples_nothing_in_a_step_and_moves_from_the_initial_policy(
    train: Train,
) -> None:
    run = train("experiment=recipe_dpo", "recipe_args.batch=8", "checkpoint.every=3")
    steps = read_metrics(run.metrics)
    assert steps[0]["policy/dpo/loss"] == pytest.approx(math.log(2), abs=1e-4)  # not moved yet
    assert steps[0]["policy/dpo/margin"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["policy/dpo/loss"] < steps[0]["policy/dpo/loss"]
    assert not any("reward/mean" in step or "time/rollout_s" in step for step in steps)
    assert not run.rollout_file(RolloutFolder.TRAINING, 3).exists()
    summary = json.loads(run.summary.read_text())
    assert summary["programs_executed_for_reward"] == 0
    assert 0 < summary["base_pass@1"] < 1 and 0 < summary["final_pass@1"] <= 1


def test_sol_ver_learns_in_rounds_and_measures_how_often_both_are_wrong(train: Train) -> None:
    run = train("experiment=recipe_sol_ver", "recipe_args.num_tests=8")
    steps = read_metrics(run.metrics)
    assert all(0 < step["task/pair/accepted"] <= 1 for step in steps)
    assert all(0 <= step["task/pair/program_right"] <= 1 for step in steps)
    assert all({"warm/loss", "policy/dpo/loss"} <= step.keys() for step in steps)
    assert "eval/test_right" in json.loads(run.summary.read_text())["final_marks"]


def test_crpe_goes_on_from_beginnings_of_wrong_programs_and_learns_their_first_wrong_steps(
    train: Train,
) -> None:
    run = train("experiment=recipe_crpe")
    rows = read_rollouts(run.rollout_file(RolloutFolder.TRAINING, 3))
    begun = [row for row in rows if row.task == "step"]
    assert begun and all(row.text.startswith("```python\n") for row in begun)
    steps = read_metrics(run.metrics)
    assert sum(step["task/step/pairs"] for step in steps) > 0
    assert any("policy/dpo/loss" in step for step in steps)


def test_stepcoder_begins_programs_and_hides_what_no_test_executes(train: Train) -> None:
    run = train(
        *("experiment=recipe_stepcoder", "recipe_args.threshold=0.1", "data.num_train=4"),
        "checkpoint.every=3",
    )
    steps = read_metrics(run.metrics)
    assert [step["task/code/begun"] for step in steps][:2] == [1.0, 1.0]
    assert all(0 <= step["policy/masked_frac"] <= 0.5 for step in steps)
    assert any(step["policy/masked_frac"] > 0 for step in steps)
    (state,) = run.checkpoints.glob("*/recipe.json")
    starts = json.loads(state.read_text())["3"]["starts"]
    assert len(starts) == 4 and any(index < 2 for index, _ in starts.values())
    rows = read_rollouts(run.rollout_file(RolloutFolder.TRAINING, 1))
    assert {round(row.reward, 4) for row in rows} <= {1.0, -0.3, -0.6, -1.0}


def test_cvedrl_samples_tests_of_given_programs(train: Train) -> None:
    # It knows tests of problems, and now and then writes one of a program.
    run = train("experiment=recipe_cvedrl", "model.path=assets/minipy/policy_tasks")
    steps = read_metrics(run.metrics)
    assert any(step["task/suite/readable"] > 0 for step in steps)
    rows = read_rollouts(run.rollout_file(RolloutFolder.TRAINING, 3))
    assert {(row.task, row.judge) for row in rows} == {("suite", "suite")}
    assert all(row.reward == -3.0 for row in rows if not row.code)
    marks = json.loads(run.summary.read_text())["final_marks"]
    assert {"eval/suite_readable", "eval/suite_right", "eval/suite_num_tests"} <= set(marks)


def test_aletheia_asks_which_of_the_programs_of_the_same_step_is_right(train: Train) -> None:
    # This policy was never shown a list, so that few of its answers can be read.
    policy = "model.path=assets/minipy/policy_tasks"
    run = train("experiment=recipe_aletheia", policy)
    rows = read_rollouts(run.rollout_file(RolloutFolder.TRAINING, 3))
    verdicts = [row for row in rows if row.task == "verdict"]
    assert verdicts and {row.judge for row in verdicts} == {"verdict"}
    assert {row.code for row in verdicts} <= {"A", "B", "C", ""}
    assert all(row.advantage == 0 for row in rows if row.task == "code")
    wanted = {1.0: 1.0, 0.0: 0.0, None: -1.0}
    assert all(row.reward == wanted[row.score] for row in verdicts)
    steps = read_metrics(run.metrics)
    assert all(step["task/verdict/num_groups"] > 0 for step in steps)
    marks = json.loads(run.summary.read_text())["final_marks"]
    assert 1 / 3 <= marks["eval/verdict_chance"] <= 1 / 2
    assert {"eval/verdict_right", "eval/best_of_by_verdicts", "eval/best_of_at_random"} <= set(
        marks
    )


def test_tested_and_synthetic_problems_have_a_judge_each_in_every_step(train: Train) -> None:
    run = train("experiment=synthetic", "data.num_train=2", "algorithm.num_steps=2")
    for step in (1, 2):
        rows = read_rollouts(run.rollout_file(RolloutFolder.TRAINING, step))
        by_judge = Counter((row.judge, row.prompt_id.partition("-")[0]) for row in rows)
        assert by_judge == {("execution", "minipy"): 8, ("rm", "synthetic"): 8}
    assert all(step["reward/exec_share"] == 0.5 for step in read_metrics(run.metrics))


def test_actor_critic_learns_a_value_and_replays_older_programs(train: Train) -> None:
    changes = ("algorithm.group_size=1", "algorithm.prompts_per_step=16", "checkpoint.every=3")
    run = train("experiment=recipe_actor_critic", *changes)
    rows = read_rollouts(run.rollout_file(RolloutFolder.TRAINING, 3))
    assert len(rows) == 16 and len({row.prompt_id for row in rows}) == 16
    steps = read_metrics(run.metrics)
    assert [step["task/replay/num_drawn"] > 0 for step in steps] == [False, True, True]
    assert steps[0]["rollout/staleness"] == 0 < steps[-1]["rollout/staleness"]
    assert all("task/critic/r2" in step for step in steps)
    (stored,) = run.checkpoints.glob("*/recipe.json")
    state = json.loads(stored.read_text())["3"]
    assert state["critic"]["num_updates"] == 3 * 8
    assert {one["policy_version"] for one in state["replay"]} == {0, 1, 2}
