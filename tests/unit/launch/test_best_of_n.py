"""Arguments of `launch/best_of_n.py`, and the files that it leaves."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.plan.selection import configure_selection, plan_selection
from conf.commands.best_of_n import BestOfNArgs
from launch import best_of_n
from launch.common.cli import main_simple
from reward.select.best_of_n import JUDGE, METHODS, Evidence
from reward.select.report import Judged, markdown, write_report
from reward.select.verdicts import Verdicts
from rl.base.console import Console
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from rl.run.evaluation_store import SampleRow, SampleStore, problem_digest
from rl.types import Verdict
from tests.settings import POLICY, REWARD_MODEL, best_of_n_args

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, ending where the engines would start."""
    monkeypatch.setattr(sys, "argv", ["best_of_n.py"])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def command(*overrides: str) -> tuple[int, str]:
        given = {"output": str(tmp_path / "out"), "tester": str(POLICY), "limit": "2"}
        given |= dict(o.split("=", 1) for o in overrides)
        code = main_simple(BestOfNArgs, best_of_n.run, [f"{k}={v}" for k, v in given.items()])
        return code, capsys.readouterr().err

    return command


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["policy=/nowhere"], ["policy: the model directory /nowhere does not exist"]),
        (["tester=/nowhere"], ["tester: the model directory /nowhere does not exist"]),
        (["reward_model=/nowhere"], ["reward_model: the model directory /nowhere does not exist"]),
        (["rm_max_tokens=9999"], ["rm_max_tokens: 9999 tokens", "lower rm_max_tokens"]),
        (["tester=auto", "test_max_tokens=600"], ["test_max_tokens: 600", "512 positions"]),
        ([f"policy={REWARD_MODEL}"], ["policy: ", "generates no text"]),
        ([f"reward_model={POLICY}"], ["Qwen3ForCausalLM"]),
        (["sizes=1,32"], ["sizes: 32", "num_samples=16"]),
        (["sizes=0"], ["sizes: "]),
        (["temperature=0"], ["temperature: 0"]),
        (["num_tests=0"], ["num_tests: 0"]),
        (["output=README.md"], ["output: README.md is a file"]),
        (["samples=/nowhere.jsonl"], ["samples: /nowhere.jsonl does not exist"]),
        (["benchmark=nosuch"], ["benchmark: 'nosuch'"]),
        (["test_max_tokens=600"], ["test_max_tokens: 600", "512 positions"]),
        (["engines=400", "placement=laptop"], ["placement=laptop needs"]),
        (["judge.model=/nowhere"], ["judge.model: the model directory /nowhere does not exist"]),
        (
            [f"judge.model={REWARD_MODEL}", "judge.max_tokens=64"],
            ["judge.model: ", "generates no text"],
        ),
        (["judge.votes=3"], ["judge.model: no model is given"]),
        (["judge.url=[http://h/v1]"], ["judge.model: no model is given"]),
        ([f"judge.model={POLICY}", "judge.read_out=yes_no"], ["import_yes_no.py"]),
        ([f"judge.model={POLICY}", "judge.max_tokens=512"], ["judge.max_tokens: 512", "512 pos"]),
        ([f"judge.model={POLICY}", "judge.votes=5"], ["judge.votes: of 5 greedy answers"]),
        ([f"judge.model={POLICY}", "judge.prompt=/nowhere"], ["judge.prompt: /nowhere cannot"]),
        (["judge.model=m", "judge.url=[h:8000]"], ["judge.url: 'h:8000' is no address"]),
        (["judge.model=m", "judge.url=[http://127.0.0.1:9/v1]"], ["judge.url: http://127.0.0.1:9"]),
        (
            ["judge.model=m", "judge.url=[http://h/v1]", "judge.read_out=yes_no", "judge.votes=2"],
            ["judge.votes: 2 shares of Yes"],
        ),
        (
            ["judge.model=m", "judge.url=[http://h/v1]", "judge.lowest=10"],
            ["judge.highest: 10 is not above judge.lowest=10"],
        ),
    ],
)
def test_bad_input_exits_2_with_a_message_and_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str],
    words: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(ROOT)
    code, err = run(*overrides)
    assert code == 2
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert list(tmp_path.iterdir()) == []


def sample_rows(problems, num: int, verdict: Verdict = Verdict.PASSED) -> list[SampleRow]:
    return [
        SampleRow(
            problem_id=prompt.id,
            problem=problem_digest(prompt),
            sample_idx=index,
            prompt=[],
            text="",
            code=f"def f(xs):\n    return {index}",
            reason="ok",
            verdict=verdict if index else Verdict.WRONG_ANSWER,
            num_passed=0,
            num_tests=8,
            seconds=0.0,
            detail="",
            finish="stop",
            num_tokens=1,
        )
        for prompt in problems
        for index in range(num)
    ]


@pytest.mark.parametrize(
    ("num", "verdict", "changed", "words"),
    [
        (1, Verdict.PASSED, False, ["has 1 samples of problem", "num_samples=16"]),
        (16, Verdict.SANDBOX_ERROR, False, ["could not be run"]),
        (16, Verdict.PASSED, True, ["another text or other tests"]),
    ],
)
def test_samples_of_something_else_are_refused(
    run: Run, tmp_path: Path, *, num: int, verdict: Verdict, changed: bool, words: list[str]
) -> None:
    problems = make_prompts("eval", 2, 0)
    store = SampleStore(tmp_path / "eval.json", num)
    store.append(sample_rows(problems, num, verdict))
    if changed:
        problems = [
            dataclasses.replace(p, tests='[{"input": [[]], "output": 0}]') for p in problems
        ]
    write_prompts(tmp_path / "p.parquet", problems)
    code, err = run(
        "benchmark=parquet", f"data.path={tmp_path / 'p.parquet'}", f"samples={store.path}"
    )
    assert code == 2
    for word in words:
        assert word in err


def test_the_report_has_every_method_in_json_table_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = tuple(make_prompts("eval", 3, 0))
    args = best_of_n_args(tmp_path, latency_problems=2)
    selection = plan_selection(args, configure_selection(args, tmp_path), problems)
    rows = sample_rows(problems, 2)
    programs = {p.id: [row for row in rows if row.problem_id == p.id] for p in problems}
    stages = {stage: 0.1 for _, used in METHODS.values() for stage in used if stage != JUDGE}
    evidence = {
        prompt.id: Evidence(
            problem_id=prompt.id,
            codes="",
            scores=[0.0, 1.0],
            tests=["assert f([1]) == 1"],
            num_asked=2,
            num_test_tokens=20,
            passed=["1", "0"],
            outputs=[[0], [1]],
            num_programs=2,
            seconds=stages if index < 2 else None,
        )
        for index, prompt in enumerate(problems)
    }
    write_report(selection, programs, evidence, tmp_path / "out", Console())
    result = json.loads((tmp_path / "out/best_of_n.json").read_text())
    assert list(result["methods"]) == [name for name in METHODS if name != "judge"]
    assert "judge" not in result
    assert (result["num_problems"], result["num_samples"], result["num_timed"]) == (3, 2, 2)
    accuracy = {name: found["accuracy"] for name, found in result["methods"].items()}
    assert accuracy == {
        "random": 0.5,
        "mbr_exec": 0.0,
        "codet": 0.0,
        "generated_tests": 0.0,
        "staged": 0.0,
        "reward_model": 1.0,
        "own_tests": 1.0,
    }
    assert result["methods"]["generated_tests"]["slower_than_rm"]["p50"] == pytest.approx(2)
    assert result["versions"]["ray"] and result["settings"]["num_tests"] == 2
    table = (tmp_path / "out/best_of_n.md").read_text()
    assert table == markdown(result)
    assert "| reward model | 1.000 |" in table and "3 of 6 could be read" in table
    assert (tmp_path / "out/best_of_n.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "CodeT" in out and "best_of_n.png" in out

    said = {
        prompt.id: Verdicts(
            problem_id=prompt.id,
            codes="",
            scores=None,
            chosen={"2": 1},
            num_requests=4,
            num_unread=1,
            num_choices=2,
            num_undecided=1,
            seconds={JUDGE: 0.3} if index < 2 else None,
        )
        for index, prompt in enumerate(problems)
    }
    judged = Judged({"model": "served", "read_out": "choice"}, said)
    write_report(selection, programs, evidence, tmp_path / "out", Console(), judged=judged)
    with_judge = json.loads((tmp_path / "out/best_of_n.json").read_text())
    assert list(with_judge["methods"]) == list(METHODS)
    judge = with_judge["methods"].pop("judge")
    assert judge["accuracy"] == 1.0 and judge["latency_s"]["p50"] == pytest.approx(0.3)
    figures = with_judge.pop("judge")
    assert (figures["requests"], figures["unread"], figures["requests_per_choice"]) == (12, 3, 4.0)
    # Beside a judge everything else is what it is without one, but for intervals' last digits.
    assert with_judge.keys() == result.keys()
    assert with_judge["generated_tests"] == result["generated_tests"]
    table = (tmp_path / "out/best_of_n.md").read_text()
    assert "| judge | 1.000 |" in table
    assert "4.0 answers for a selection; 3 of 12 could not be read, and 3 of 6 choices" in table
