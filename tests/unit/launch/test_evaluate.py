"""Arguments of `launch/evaluate.py`: what contradicts itself is refused before anything starts."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.jobs.benchmark import plan_benchmark
from actors.plan.evaluation import configure, read_benchmark
from launch import evaluate
from launch.common.cli import main_simple
from launch.evaluate import EvaluateArgs
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from tests.settings import POLICY, evaluation_args

pytestmark = pytest.mark.unit

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.parquet"
    write_prompts(path, make_prompts("eval", 4, 0))
    return path


@pytest.fixture
def run(problems: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, ending where the engines would start."""
    monkeypatch.setattr(sys, "argv", ["evaluate.py"])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def command(*overrides: str) -> tuple[int, str]:
        given = {
            "model": str(POLICY),
            "benchmark": "parquet",
            "data.path": str(problems),
            "output": str(problems.parent / "out.json"),
        }
        given |= dict(o.split("=", 1) for o in overrides)
        code = main_simple(EvaluateArgs, evaluate.run, [f"{k}={v}" for k, v in given.items()])
        return code, capsys.readouterr().err

    return command


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["ks=1,9"], ["ks: pass@9", "num_samples=8"]),
        (["num_samples=2", "ks=[4]"], ["ks: pass@4", "num_samples=2"]),
        (["ks=0"], ["ks: 0 is not"]),
        (["ks=[]"], ["ks: [] is not"]),
        (["ks=1,x"], ["ks: "]),
        (["temperature=0"], ["temperature: 0", "num_samples=1"]),
        (["temperature=0.005"], ["temperature=0.005", "samples at 0.01", "0.01 and above"]),
        (["protocol=leetcode"], ["protocol: 'leetcode' is not one of default, livecodebench"]),
        (["protocol=cure", "tolerance=0.1"], ["tolerance=0.1: protocol=cure", "rule of its own"]),
        (["output=."], ["output: . cannot be written"]),
        (["model=/nowhere"], ["model: the model directory /nowhere does not exist"]),
        ([f"model={POLICY.parent / 'rm'}"], ["ForSequenceClassification"]),
        (["max_tokens=600"], ["1 (max_prompt_tokens) + 600 (max_tokens)", "512 positions"]),
        (["benchmark=nosuch"], ["benchmark: 'nosuch'"]),
        (["data.path=/nowhere.parquet"], ["/nowhere.parquet"]),
        (["max_prompt_tokens=20"], ["4 of 4 prompts have more than 20 tokens", "the longest has"]),
        (["chat_template=nofile"], ["chat_template: 'nofile'"]),
        (["tensor_parallel=2", "placement=laptop"], ["tensor_parallel: 2 needs GPUs"]),
        (["engines=400", "placement=laptop"], ["placement=laptop needs", "400 actors"]),
    ],
)
def test_bad_input_exits_2_with_a_message_and_writes_nothing(
    run: Run, problems: Path, overrides: list[str], words: list[str]
) -> None:
    before = sorted(problems.parent.iterdir())
    code, err = run(*overrides)
    assert code == 2
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert sorted(problems.parent.iterdir()) == before


def test_malformed_tests_are_named_by_file_row_and_column(run: Run, problems: Path) -> None:
    prompts = make_prompts("eval", 3, 0)
    write_prompts(problems, [*prompts[:2], dataclasses.replace(prompts[2], tests="[not json")])
    code, err = run()
    assert code == 2
    assert f"{problems}:2:tests: must be JSON" in err


def test_a_cluster_needs_a_placement(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    code, err = run()
    assert (code, "RAY_ADDRESS" in err) == (2, True)


def test_other_settings_than_those_on_disk_are_refused_by_name(run: Run, problems: Path) -> None:
    args = evaluation_args(EvaluateArgs, problems, output=str(problems.parent / "out.json"))
    settings = plan_benchmark(
        args, configure(args, 256, 256).model, read_benchmark(args), (1, 8)
    ).settings
    beside = problems.parent / "out"
    beside.with_suffix(".settings.json").write_text(json.dumps(dict(settings) | {"top_p": 1.0}))
    beside.with_suffix(".samples.jsonl").write_text("torn")
    code, err = run()
    assert code == 2
    assert "top_p: " in err and "resume=never" in err
    assert err.count("error: ") == 1
