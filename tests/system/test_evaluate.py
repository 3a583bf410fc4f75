"""The evaluation command on the shipped policy: real engine, real execution."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl.problems.minipy import NUM_TESTS, make_prompts
from rl.problems.prompts import write_prompts
from tests.system.forks import ROOT, run_command

pytestmark = pytest.mark.system

NUM_PROBLEMS = 8
NUM_SAMPLES = 4


def _command(*overrides: str) -> list[str]:
    return [
        "launch/evaluate.py",
        f"model={ROOT / 'assets/minipy/policy'}",
        "benchmark=parquet",
        "data.path=problems.parquet",
        "output=out.json",
        f"num_samples={NUM_SAMPLES}",
        "max_tokens=64",
        "temperature=1",
        "ks=1,4",
        *overrides,
    ]


def _evaluate(cwd: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return run_command(*_command(*overrides), cwd=cwd)


@pytest.mark.timeout(400)
def test_an_evaluation_keeps_every_sample_and_repeats_none(tmp_path: Path) -> None:
    write_prompts(tmp_path / "problems.parquet", make_prompts("eval", NUM_PROBLEMS, 0))
    first = _evaluate(tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["num_problems"], document["num_samples"]) == (NUM_PROBLEMS, NUM_SAMPLES)
    assert set(document["pass@k"]) == {"1", "4"}
    assert 0.2 < document["pass@k"]["1"] < document["pass@k"]["4"] <= 1.0
    assert document["avg@n"] == pytest.approx(document["pass@k"]["1"])
    assert sum(document["verdicts"].values()) == NUM_PROBLEMS * NUM_SAMPLES
    assert sum(document["reasons"].values()) == NUM_PROBLEMS * NUM_SAMPLES
    assert document["tokens_per_s"] > 0 and document["num_resumed"] == 0
    assert document["settings"]["max_tokens"] == 64 and document["versions"]["ray"]
    assert "pass@1" in first.stdout

    samples = tmp_path / "out.samples.jsonl"
    whole = samples.read_bytes()
    assert len(whole.splitlines()) == NUM_PROBLEMS * NUM_SAMPLES
    rows = [json.loads(line) for line in whole.splitlines()]
    assert {"text", "code", "reason", "verdict", "num_passed", "finish"} <= set(rows[0])
    for row in rows:
        assert (row["num_passed"] == row["num_tests"] == NUM_TESTS) is (row["verdict"] == "PASSED")

    # Nothing is left to sample: figures of other ks need no engine.
    more = _evaluate(tmp_path, "ks=2")
    assert more.returncode == 0, more.stderr[-3000:]
    document = json.loads((tmp_path / "out.json").read_text())
    assert set(document["pass@k"]) == {"2"}
    assert (document["num_resumed"], document["tokens_per_s"]) == (NUM_PROBLEMS, None)

    refused = _evaluate(tmp_path, "temperature=0.5")
    assert refused.returncode == 2
    assert "temperature: " in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.timeout(400)
def test_a_stop_ends_an_evaluation_in_one_line_and_keeps_what_is_done(tmp_path: Path) -> None:
    # More than could be sampled before the signal comes.
    write_prompts(tmp_path / "problems.parquet", make_prompts("eval", 3000, 0))
    samples = tmp_path / "out.samples.jsonl"
    script, *args = _command()
    with subprocess.Popen(
        [sys.executable, str(ROOT / script), *args],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 200
        while not (samples.is_file() and samples.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "error: StoppedError: stopped by SIGTERM"
    assert "Traceback" not in err and "***" not in err  # nor that of Ray's C++ part
    assert f"the same command goes on from {samples.name}" in out
    assert samples.stat().st_size > 0
