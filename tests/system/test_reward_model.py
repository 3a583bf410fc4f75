"""From rollouts to a reward model, by the commands that a user types."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from reward.code.extract import ExtractConfig, extract
from reward.model.golden import GOLDEN_SCORES
from reward.pairs.pairs import read_pairs
from rl.problems import minipy
from rl.problems.prompts import write_prompts
from rl.run.rollouts import RolloutRow, write_rollouts
from tests.system.forks import ROOT, run_command

pytestmark = pytest.mark.system

NUM_PROBLEMS, NUM_CODES = 48, 8


def _command(*args: str, cwd: Path) -> str:
    done = run_command(*args, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _write_rollouts(directory: Path) -> None:
    """Right and corrupted answers without a verdict, over two steps, and the problems' tests."""
    prompts = minipy.make_prompts("train", NUM_PROBLEMS, 0)
    write_prompts(directory / "problems.parquet", prompts)
    rng = random.Random(0)
    rows: list[RolloutRow] = []
    for prompt, spec in zip(prompts, minipy.specs("train", NUM_PROBLEMS, seed=0), strict=True):
        for idx in range(NUM_CODES):
            right = minipy.fenced(spec.program(rng))
            text = right if idx < 3 else minipy.corrupt(spec, rng)
            found = extract(text, ExtractConfig())
            rows.append(
                RolloutRow(
                    step=1 + idx % 2,
                    prompt_id=prompt.id,
                    question=prompt.question,
                    sample_idx=idx,
                    text=text,
                    code=found.code,
                    reason=found.reason.value,
                    score=None,
                    reward=0.0,
                    advantage=None,
                    num_tokens=1,
                    finish="stop",
                    policy_version=idx % 2,
                )
            )
    for step in (1, 2):
        path = directory / "rollouts" / f"step-{step:06d}.parquet"
        write_rollouts(path, [row for row in rows if row.step == step])


@pytest.mark.timeout(600)
def test_rollouts_become_verified_pairs_and_pairs_a_reward_model(tmp_path: Path) -> None:
    _write_rollouts(tmp_path)
    mine = ("launch/mine_pairs.py", "input=rollouts", "problems=problems.parquet")
    made = ("pairs_per_problem=8", "mutants_per_problem=2", "swaps_per_problem=1")
    _command(*mine, *made, "validation_share=0.25", "output=pairs", cwd=tmp_path)
    train = read_pairs(tmp_path / "pairs/train.parquet")
    validation = read_pairs(tmp_path / "pairs/validation.parquet")
    assert not {p.prompt_id for p in train} & {p.prompt_id for p in validation}
    assert {p.source for p in train} == {"rollout", "mutant", "swap"}
    assert all(p.pos_tests_passed == 1.0 for p in train)
    assert all(p.neg_tests_passed is not None and p.neg_tests_passed < 1.0 for p in train)
    assert {p.neg_step for p in train} == {1, 2}
    record = json.loads((tmp_path / "pairs/mining.json").read_text())
    assert record["num_pairs"] == {"train": len(train), "validation": len(validation)}

    said = _command(
        *("launch/train_rm.py", "data=pairs", f"model={ROOT / 'assets/minipy/policy'}"),
        *("output=rm", "max_tokens=256", "epochs=2", "batch_pairs=16", "lm_coef=0.05"),
        cwd=tmp_path,
    )
    assert "prefixes shared" in said
    result = json.loads((tmp_path / "rm/training.json").read_text())
    history = {int(step): figures for step, figures in result["history"].items()}
    untrained = history.pop(0)
    assert untrained["num_pairs"] == len(validation)
    best = max(figures["accuracy"] for figures in history.values())
    assert result["validation"]["accuracy"] == best == history[result["best_step"]]["accuracy"]
    assert result["num_steps"] in history  # the last step was looked at as well
    assert "| pair accuracy before training |" in (tmp_path / "rm/README.md").read_text()
    assert not list((tmp_path / "rm").glob("best-*"))
    model = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "rm", dtype=torch.float32, use_safetensors=True
    )
    assert model.config.num_labels == 1
    assert (tmp_path / "rm" / GOLDEN_SCORES).is_file()
