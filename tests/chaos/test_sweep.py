"""Four short runs of a sweep on this machine, of which one fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
def test_one_failed_job_of_four_is_reported_and_the_others_complete(tmp_path: Path) -> None:
    # A placement that has no time to be reserved fails; the other values are all enough.
    deadlines = "placement.ready_timeout_s=300,0.0001,301,302"
    command = [
        *(sys.executable, str(ROOT / "launch/train.py"), "--multirun", deadlines),
        *("experiment=quickstart", "data.num_eval=4", "data.num_train=32", "probe.every=0"),
        *("algorithm.num_steps=1", "algorithm.prompts_per_step=4", "evaluation.num_samples=2"),
        *("policy.ranks=1", "reward.shards=1"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 1, done.stdout[-3000:]
    sweep = tmp_path / "outputs/quickstart/run-sweep"
    rows = json.loads((sweep / "sweep.json").read_text())["jobs"]
    assert [row["status"] for row in rows] == ["done", "failed", "done", "done"]
    assert "job 1 (placement.ready_timeout_s=0.0001): exit code 1: DeadlineError" in done.stderr
    for row in rows:
        run = tmp_path / row["directory"]
        assert run.parent == sweep and (run / "config.yaml").is_file()
        if row["status"] == "done":
            summary = json.loads((run / "summary.json").read_text())
            assert row["figures"]["final"] == summary["final_pass@1"]
            assert f"{summary['final_pass@1']:.3f}" in done.stdout
    assert (sweep / "sweep.md").is_file() and (sweep / "sweep.png").is_file()
