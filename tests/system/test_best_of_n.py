"""The best-of-N command on the shipped models: real engines, real sandbox, real resumption."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rl.problems import minipy
from rl.run.evaluation_store import SampleRow, SampleStore, problem_digest
from rl.types import Verdict
from tests.system.forks import ROOT, run_command

pytestmark = pytest.mark.system

NUM_PROBLEMS = 3
NUM_TESTS = 4


def _best_of_n(cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_command(
        "launch/best_of_n.py",
        f"tester={ROOT / 'assets/minipy/policy'}",
        f"limit={NUM_PROBLEMS}",
        "samples=eval.samples.jsonl",
        "num_samples=4",
        f"num_tests={NUM_TESTS}",
        "test_max_tokens=64",
        "latency_problems=2",
        "output=out",
        cwd=cwd,
    )


def _sampled(cwd: Path) -> None:
    """Four programs for each held-out problem, of which the third is right."""
    problems = minipy.make_prompts("eval", NUM_PROBLEMS, 0)
    store = SampleStore(cwd / "eval.json", 4)
    for prompt, spec in zip(problems, minipy.specs("eval", NUM_PROBLEMS, 0), strict=True):
        right = spec.program(random.Random(0))
        codes = ["", "def f(xs):\n    return 0", right, "def f(xs):\n    return 1 / 0"]
        store.append(
            [
                SampleRow(
                    problem_id=prompt.id,
                    problem=problem_digest(prompt),
                    sample_idx=index,
                    prompt=[],
                    text=code,
                    code=code,
                    reason="ok" if code else "no_block",
                    verdict=Verdict.PASSED if code == right else Verdict.WRONG_ANSWER,
                    num_passed=0,
                    num_tests=minipy.NUM_TESTS,
                    seconds=0.0,
                    detail="",
                    finish="stop",
                    num_tokens=1,
                )
                for index, code in enumerate(codes)
            ]
        )


def _result(cwd: Path) -> dict[str, Any]:
    return json.loads((cwd / "out/best_of_n.json").read_text())


@pytest.mark.timeout(600)
def test_programs_are_chosen_in_every_way_and_nothing_is_found_out_twice(tmp_path: Path) -> None:
    _sampled(tmp_path)
    first = _best_of_n(tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    result = _result(tmp_path)
    methods = result["methods"]
    assert methods["random"]["accuracy"] == 0.25 and methods["own_tests"]["accuracy"] == 1.0
    # The shipped reward model tells a right program from constants and crashes.
    assert methods["reward_model"]["accuracy"] == 1.0
    assert methods["reward_model"]["curve"]["1"] == 0.25
    assert (result["num_problems"], result["num_timed"]) == (NUM_PROBLEMS, 2)
    assert result["generated_tests"]["asked"] == NUM_PROBLEMS * NUM_TESTS
    for name in ("reward_model", "generated_tests", "staged", "own_tests"):
        assert 0 < methods[name]["latency_s"]["p50"] <= methods[name]["latency_s"]["p95"]
    assert "CodeT" in first.stdout
    assert (tmp_path / "out/best_of_n.png").is_file()

    # Everything is on the disk: the same figures again, without an engine.
    (tmp_path / "out/best_of_n.json").unlink()
    again = _best_of_n(tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "==> selection" not in again.stdout
    assert _result(tmp_path) == result
