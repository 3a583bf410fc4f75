"""A replay of saved rollouts, with the real ranks: the weights of the run, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
# What of a step depends on the weights and on what was sampled, and on no clock.
LEARNED = ("policy/loss", "policy/grad_norm", "rollout/mismatch_kl", "reward/mean")


def command(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def learned(run: Path) -> list[list[float]]:
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [[step[name] for name in LEARNED] for step in steps]


def weights(run: Path) -> dict[str, bytes]:
    found = {file.name: file.read_bytes() for file in (run / "hf").glob("*.safetensors")}
    assert found
    return found


def trained(root: Path, *more: str) -> Path:
    small = ("algorithm.num_steps=3", "algorithm.prompts_per_step=4", "data.num_eval=4")
    quick = ("evaluation.num_samples=1", "probe.every=0", "reward.shards=1", f"output_dir={root}")
    command("launch/train.py", "experiment=quickstart", "name=once", *small, *quick, *more)
    return root / "quickstart/once"


def test_the_weights_and_the_losses_of_a_replay_are_those_of_the_run(tmp_path: Path):
    run, again, other = trained(tmp_path), tmp_path / "again", tmp_path / "other"
    said = command("launch/replay.py", f"run={run}", f"output={again}")
    assert f"the same bytes as {run}/hf" in said
    assert weights(again) == weights(run)
    assert learned(again) == learned(run)
    assert len(learned(run)) == 3
    changed = "settings={policy.lr: 1e-3}"
    said = command("launch/replay.py", f"run={run}", f"output={other}", changed)
    assert f"other than {run}/hf" in said
    assert learned(other)[0] == learned(run)[0]  # the first step begins with the same policy
    assert learned(other)[1] != learned(run)[1]


def test_one_rank_in_this_process_learns_what_one_rank_of_a_run_does(tmp_path: Path):
    run, again = (
        trained(tmp_path, "policy.ranks=1", "algorithm.max_staleness=1"),
        tmp_path / "again",
    )
    said = command("launch/replay.py", f"run={run}", f"output={again}", "in_process=true")
    assert f"the same bytes as {run}/hf" in said
    assert weights(again) == weights(run)
    assert learned(again) == learned(run)
