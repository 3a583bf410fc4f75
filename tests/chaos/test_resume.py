"""Killed at any moment and resumed, a run ends as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from reward.pairs.pairs import Pair, write_pairs
from rl.problems import minipy
from rl.problems.prompts import write_prompts

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).resolve().parents[2]
_DEADLINE_S = 280.0


def _start(*args: str, cwd: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / args[0]), *args[1:]]
    with (cwd / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=cwd, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _finish(*args: str, cwd: Path) -> str:
    process = _start(*args, cwd=cwd)
    code = process.wait(_DEADLINE_S)
    said = (cwd / "log").read_text()
    assert code == 0, said[-3000:]
    return said


def _kill_when(process: subprocess.Popen[bytes], sign: Path) -> None:
    """Kill a run and all of its actors as soon as `sign` is there."""
    deadline = time.monotonic() + _DEADLINE_S
    while not sign.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, f"{sign} never appeared"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _flip_a_bit(checkpoint: Path, pattern: str) -> None:
    path = next(checkpoint.glob(pattern))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def _pairs(path: Path) -> None:
    """A right program and one of another problem, for each problem."""
    rng = random.Random(0)
    specs = minipy.specs("train", 40, seed=0)
    write_pairs(
        path,
        [
            Pair(
                prompt_id=str(number),
                question_content=spec.question,
                code_pos=spec.program(rng),
                code_neg=specs[number - 1].program(rng),
            )
            for number, spec in enumerate(specs)
        ],
    )


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("killed_after", [2, 6])
def test_a_killed_reward_model_training_ends_with_the_same_weights(
    tmp_path: Path, killed_after: int
) -> None:
    _pairs(tmp_path / "pairs.parquet")
    command = (
        *("launch/train_rm.py", "data=pairs.parquet", f"model={ROOT / 'assets/minipy/policy'}"),
        *("max_tokens=256", "batch_pairs=8", "epochs=2", "evaluate_every=3"),
        *("checkpoint_every=2", "resume=auto"),
    )
    _finish(*command, "output=whole", cwd=tmp_path)
    process = _start(*command, "output=cut", cwd=tmp_path)
    _kill_when(process, tmp_path / f"cut/checkpoints/step-{killed_after:06d}")
    assert not (tmp_path / "cut/training.json").exists()
    said = _finish(*command, "output=cut", cwd=tmp_path)
    assert "resumed from" in said
    for file in sorted((tmp_path / "whole").glob("*.safetensors")):
        expected, found = load_file(file), load_file(tmp_path / "cut" / file.name)
        assert expected.keys() == found.keys()
        assert all((expected[name] == found[name]).all() for name in expected)
    whole, cut = (
        json.loads((tmp_path / name / "training.json").read_text()) for name in ("whole", "cut")
    )
    assert whole["history"] == cut["history"]
    assert whole["best_step"] == cut["best_step"]


@pytest.mark.timeout(900)
def test_a_killed_rl_run_goes_on_after_its_newest_good_checkpoint(tmp_path: Path) -> None:
    command = (
        *("launch/train.py", "experiment=quickstart", "data.num_eval=6", "data.num_train=64"),
        *("algorithm.prompts_per_step=4", "algorithm.num_steps=6"),
        *("checkpoint.every=2", "resume=auto"),
    )
    run = tmp_path / "outputs/quickstart/run"
    process = _start(*command, cwd=tmp_path)
    _kill_when(process, run / "checkpoints/step-000004")
    assert not (run / "summary.json").exists()
    _flip_a_bit(run / "checkpoints/step-000004", "zero3/*optim_states.pt")
    said = _finish(*command, "policy.ranks=1", cwd=tmp_path)  # two wrote it
    assert "differs from the steps so far: policy.ranks 2 -> 1" in said
    assert "step-000004 is refused: zero3/" in said
    assert "step-000002 after step 2" in said
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert json.loads((run / "summary.json").read_text())["steps"] == 6


_OF_THE_CALL = ("wall_s", "tokens_per_s", "num_resumed")  # not of the samples


def _figures(path: Path) -> dict[str, object]:
    document = json.loads(path.read_text())
    return {name: value for name, value in document.items() if name not in _OF_THE_CALL}


def _texts(path: Path) -> list[tuple[str, int, str]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted((row["problem_id"], row["sample_idx"], row["text"]) for row in rows)


@pytest.mark.timeout(900)
def test_an_interrupted_evaluation_ends_with_the_figures_of_an_uninterrupted_one(
    tmp_path: Path,
) -> None:
    write_prompts(tmp_path / "problems.parquet", minipy.make_prompts("eval", 8, 0))
    command = (
        *("launch/evaluate.py", f"model={ROOT / 'assets/minipy/policy'}", "benchmark=parquet"),
        *("data.path=problems.parquet", "output=out.json", "num_samples=4", "max_tokens=64"),
        *("temperature=1", "ks=1,4"),
    )
    _finish(*command, cwd=tmp_path)
    samples = tmp_path / "out.samples.jsonl"
    whole, figures = samples.read_bytes(), _figures(tmp_path / "out.json")
    texts = _texts(samples)
    samples.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "out.json").unlink()
    assert "resumed: " in _finish(*command, cwd=tmp_path)
    assert _figures(tmp_path / "out.json") == figures
    assert _texts(samples) == texts
