"""Recipes on real engines: one command each, and what the run leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rl.metrics import read_metrics
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import read_rollouts

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *("algorithm.num_steps=3", "algorithm.prompts_per_step=4", "algorithm.group_size=4"),
    *("data.num_train=32", "data.num_eval=4", "evaluation.num_samples=4", "policy.ranks=1"),
)


def trained(output: Path, *overrides: str) -> RunDirectory:
    """The directory of a small run."""
    command = [sys.executable, "launch/train.py", f"output_dir={output}", *SMALL, *overrides]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (root,) = output.glob("*/run")
    return RunDirectory(root)


def test_cure_samples_programs_and_tests_and_runs_each_on_the_other(tmp_path: Path) -> None:
    run = trained(tmp_path, "experiment=recipe_cure", "recipe_args.num_tests=4")
    rows = read_rollouts(run.rollout_file(RolloutFolder.TRAINING, 3))
    assert [row.task for row in rows] == (["code"] * 4 + ["test"] * 4) * 4
    tests = [row for row in rows if row.task == "test"]
    assert {row.judge for row in tests} == {"matrix"}
    assert any(row.code.startswith("assert f(") for row in tests)
    assert {row.reward for row in tests if not row.code} <= {-1.0, 0.0}
    steps = read_metrics(run.metrics)
    assert all(0 < step["task/test/readable"] <= 1 for step in steps)
    assert all(step["reward/exec_share"] == 1 for step in steps)  # of the groups of programs
    summary = json.loads(run.summary.read_text())
    assert set(summary["base_marks"]) == set(summary["final_marks"])
    assert {"eval/test_right", "eval/best_of_by_tests"} <= set(summary["final_marks"])


def test_codrlplus_asks_what_failed_programs_do_and_keeps_them_in_its_checkpoint(
    tmp_path: Path,
) -> None:
    run = trained(tmp_path, "experiment=recipe_codrlplus", "checkpoint.every=3")
    steps = read_metrics(run.metrics)
    assert steps[0]["task/trace/num_groups"] == 0
    assert steps[-1]["task/trace/num_groups"] == 3  # of 7
    assert steps[-1]["task/trace/num_kept"] >= 3
    (state,) = run.checkpoints.glob("*/recipe.json")
    traces = json.loads(state.read_text())["3"]["traces"]
    assert len(traces) > steps[-1]["task/trace/num_kept"]
    assert {one["step"] for one in traces} == {1, 2, 3}
    assert "eval/trace_right" in json.loads(run.summary.read_text())["final_marks"]


def test_aletheia_asks_which_of_the_programs_of_the_same_step_is_right(tmp_path: Path) -> None:
    # This policy was never shown a list, so that few of its answers can be read.
    policy = "model.path=assets/minipy/policy_tasks"
    run = trained(tmp_path, "experiment=recipe_aletheia", policy)
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
