"""The best-of-N command on the shipped models: real engines, real sandbox, real resumption."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rl.problems import minipy
from rl.run.evaluation_store import SampleRow, SampleStore, problem_digest
from rl.types import Verdict
from tests.system.forks import ROOT, run_command
from tests.unit.reward.judges.servers import serving

pytestmark = pytest.mark.system

NUM_PROBLEMS = 3
NUM_TESTS = 4


def _best_of_n(cwd: Path, *judge: str) -> subprocess.CompletedProcess[str]:
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
        *judge,
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


def _says(path: str, body: Any) -> Any:
    """A server that names the program of a list which neither is constant nor crashes."""
    if body is None:
        return {"data": [{"id": "judge"}]}
    text = body["messages"][0]["content"]
    programs = re.findall(r"^([A-Z]):\n```python\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    wrong = ("return 0\n", "return 1 / 0\n")
    (best, *_) = [letter for letter, code in programs if not code.endswith(wrong)]
    said = {"message": {"content": f"It is so.\nbest = {best}"}, "finish_reason": "stop"}
    return {"choices": [said]}


@pytest.mark.timeout(900)
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

    # A language model on engines of the command; this one has never learned to say which is right.
    policy = f"judge.model={ROOT / 'assets/minipy/policy'}"
    here = _best_of_n(tmp_path, policy, "judge.max_tokens=64", "judge.votes=2")
    assert here.returncode == 0, here.stderr[-3000:]
    assert "==> judge" in here.stdout and "==> selection" not in here.stdout
    found = _result(tmp_path)
    assert found["judge"]["requests"] == NUM_PROBLEMS * 2  # one list of three programs each
    assert 0 <= found["judge"]["unread"] <= found["judge"]["requests"]
    assert found["methods"]["judge"]["latency_s"]["p50"] > 0
    assert found["methods"]["reward_model"]["accuracy"] == methods["reward_model"]["accuracy"]

    # A served one, which needs no engine.
    with serving(_says) as server:
        served = _best_of_n(tmp_path, "judge.model=judge", f"judge.url=[{server.url}/v1]")
        num_asked = len(server.asked)
        again = _best_of_n(tmp_path, "judge.model=judge", f"judge.url=[{server.url}/v1]")
        assert len(server.asked) < 2 * num_asked  # checked once more, and not asked
    assert served.returncode == again.returncode == 0, served.stderr[-3000:]
    found = _result(tmp_path)
    assert found["methods"]["judge"]["accuracy"] == 1.0
    assert (found["judge"]["unread"], found["judge"]["undecided"]) == (0, 0)
    assert "| judge | 1.000 |" in (tmp_path / "out/best_of_n.md").read_text()
