"""The commands as a user types them, shortened, on the shipped models."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rl.problems import minipy
from rl.problems.prompts import write_prompts
from rl.run.rollouts import read_rollouts
from rl.types import Verdict
from tests.system.forks import ROOT, run_command

pytestmark = pytest.mark.system


def _command(*args: str, cwd: Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / args[0]), *args[1:]]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.mark.timeout(400)
def test_a_hybrid_runs_tests_where_there_are_some_and_asks_the_model_elsewhere(
    tmp_path: Path,
) -> None:
    train = minipy.make_prompts("train", 8, 0)
    train = [replace(p, tests=None) if i % 2 else p for i, p in enumerate(train)]
    write_prompts(tmp_path / "train.parquet", train)
    write_prompts(tmp_path / "test.parquet", minipy.make_prompts("eval", 4, 0))
    done = run_command(
        *("launch/train.py", "experiment=quickstart", "reward=hybrid", "data=parquet"),
        *("data.train_path=train.parquet", "data.eval_path=test.parquet"),
        *("algorithm.num_steps=2", "algorithm.prompts_per_step=4"),
        *("reward.shards=1", "policy.ranks=1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "outputs/quickstart/run"
    rows = [row for path in (run / "rollouts").iterdir() for row in read_rollouts(path)]
    tested = {prompt.id for prompt in train if prompt.tests is not None}
    assert len(rows) == 8 * 8  # the two steps are one pass over the problems
    assert {row.judge == "execution" for row in rows if row.prompt_id in tested} == {True}
    assert {row.judge == "rm" for row in rows if row.prompt_id not in tested} == {True}
    executed = [row for row in rows if row.verdict is not None]
    assert executed and all(row.code and row.prompt_id in tested for row in executed)
    assert all(row.reward == float(row.verdict == Verdict.PASSED) for row in executed)
    assert all(row.reward > 0 for row in rows if row.judge == "rm" and row.code)
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(step["reward/exec_share"] for step in metrics) == 1.0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["reward"] == "hybrid"
    assert 0 < summary["programs_executed_for_reward"] <= len(executed)


def test_score_adds_the_fields_of_the_contract(tmp_path: Path) -> None:
    question = "Return the sum of the square of the numbers in xs that are even."
    right = "```python\ndef f(xs):\n    return sum(x * x for x in xs if x % 2 == 0)\n```"
    wrong = "```python\ndef f(xs):\n    return max(x + 3 for x in xs if x < 0)\n```"
    answers = [right, wrong, "no code at all"]
    lines = [{"prompt": question, "response": answer} for answer in answers]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = ROOT / "assets/minipy/rm"
    done = run_command(
        "launch/score.py", f"model={model}", "input=in.jsonl", "output=out.jsonl", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["valid"] for row in rows] == [True, True, False]
    assert rows[0]["score"] > rows[1]["score"]
    assert rows[0]["reward"] > rows[1]["reward"] > rows[2]["reward"] == 0
    assert rows[2]["reason"] == "no_block" and rows[2]["score"] is None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["experiment=qwen3_8b_codescaler"], ["8 GPUs", "0 GPUs"]),
        (["policy.lrr=1"], ["policy.lrr", "policy.lr"]),
        (["model.path=/nowhere"], ["model.path", "/nowhere"]),
        (["data=parquet", "data.train_path=a.parquet", "data.eval_path=b.parquet"], ["a.parquet"]),
    ],
)
def test_bad_input_is_refused_before_any_engine(
    tmp_path: Path, args: list[str], words: list[str]
) -> None:
    done = _command("launch/train.py", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_model_without_safetensors_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    (model / "pytorch_model.bin").write_bytes(b"")
    done = _command("launch/train.py", f"model.path={model}", cwd=tmp_path)
    assert done.returncode == 2
    assert "safetensors" in done.stderr and "Traceback" not in done.stderr


def test_a_malformed_parquet_row_is_refused_with_its_place(tmp_path: Path) -> None:
    good = {
        "id": "a",
        "prompt": [{"role": "user", "content": "Add."}],
        "tests": None,
        "entry_point": None,
        "source": "made",
        "meta": "{}",
    }
    rows = [good, good | {"id": "b", "tests": "[not json"}]
    for name in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    done = _command(
        "launch/train.py",
        "data=parquet",
        "data.train_path=train.parquet",
        "data.eval_path=test.parquet",
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "train.parquet:1:tests" in done.stderr and "Traceback" not in done.stderr


def test_a_dry_run_plans_for_hardware_that_is_not_here_and_starts_nothing(tmp_path: Path) -> None:
    args = ("launch/train.py", "experiment=qwen3_8b_codescaler", "dry_run=true")
    done = _command(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for word in ("gpu 7  policy-3", "52.0 of 79.0 GiB", "needs 8 GPUs", "nothing was started"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []
