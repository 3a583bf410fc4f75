"""Suites are counted as they are: each kind of disagreement has its own number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conf.errors import DataError, UserError
from launch.benches.suites import COLUMNS, Agreement, Case, measure_suites, read_suites
from reward.verify.verdict import Program, ProgramResult
from rl.types import Verdict

pytestmark = pytest.mark.unit

TESTS = [{"input": [2], "output": 4}]


def row(should: str, code: str = "def f(x): return 2 * x", **fields: Any) -> dict[str, Any]:
    return {"id": "r", "code": code, "tests": TESTS, "entry_point": "f", "should": should} | fields


def write(path: Path, *rows: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def said(verdict: Verdict) -> ProgramResult:
    return ProgramResult(verdict=verdict, num_passed=0, num_tests=1)


@pytest.mark.parametrize(
    ("should", "judgement", "counted"),
    [
        ("pass", said(Verdict.PASSED), "num_agreeing"),
        ("fail", said(Verdict.WRONG_ANSWER), "num_agreeing"),
        ("fail", said(Verdict.TIMEOUT), "num_agreeing"),
        ("refuse", None, "num_agreeing"),
        ("fail", said(Verdict.PASSED), "false_passes"),
        ("refuse", said(Verdict.PASSED), "false_passes"),
        ("pass", said(Verdict.RUNTIME_ERROR), "false_fails"),
        ("pass", None, "false_fails"),
        ("pass", said(Verdict.UNJUDGED), "unjudged"),
        ("fail", said(Verdict.UNJUDGED), "unjudged"),
        ("fail", said(Verdict.SANDBOX_ERROR), "unjudged"),
    ],
)
def test_each_verdict_is_counted_once_and_what_is_not_judged_agrees_with_nothing(
    should: Any, judgement: ProgramResult | None, counted: str
):
    agreement = Agreement("s")
    agrees = agreement.add(Case("r", Program("", "[]"), should), judgement)
    assert agrees is (counted == "num_agreeing")
    lists = {name: getattr(agreement, name) for name in ("false_passes", "false_fails", "unjudged")}
    assert {name for name, ids in lists.items() if ids} == ({counted} - {"num_agreeing"})
    assert (agreement.num_rows, agreement.num_agreeing) == (1, int(agrees))
    assert len(agreement.columns()) == len(COLUMNS)


def test_suites_are_judged_and_each_disagreement_is_written(tmp_path: Path):
    suites = tmp_path / "suites"
    suites.mkdir()
    write(
        suites / "one.jsonl",
        row("pass"),
        row("fail", "def f(x): return 3 * x"),
        row("fail", id="passes"),
        row("pass", "def f(x): return x", id="fails"),
        row("refuse", tests=[{"input": [2]}]),
    )
    write(suites / "two.jsonl", row("pass"))
    output = tmp_path / "wrong.jsonl"
    one, two = measure_suites(suites, 1, 4.0, output)
    assert (one.suite, one.num_rows, one.num_agreeing) == ("one", 5, 3)
    assert (one.false_passes, one.false_fails, one.unjudged) == (["passes"], ["fails"], [])
    assert (two.num_rows, two.num_agreeing) == (1, 1)
    assert one.seconds > 0
    assert one.cpu_s > 0
    wrong = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(line["suite"], line["id"], line["verdict"]) for line in wrong] == [
        ("one", "passes", "PASSED"),
        ("one", "fails", "WRONG_ANSWER"),
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("maybe"), r"one.jsonl:2:should: must be one of pass, fail, refuse \('maybe'\)"),
        (row("pass") | {"code": None}, "one.jsonl:2:code: must be the text of a program"),
        (row("pass", tests=None), "one.jsonl:2:tests: "),
        (row("pass", entry_point=3), "one.jsonl:2:entry_point: "),
        (row("pass", tests=[{"input": [2]}]), 'one.jsonl:2:tests: case 0 needs "input"'),
        ([1], "one.jsonl:2:-: must be an object, not list"),
    ],
)
def test_malformed_rows_are_named_before_anything_runs(tmp_path: Path, bad: object, message: str):
    write(tmp_path / "one.jsonl", row("pass"), bad)
    with pytest.raises(DataError, match=message):
        read_suites(tmp_path)


def test_a_directory_without_suites_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="holds no "):
        read_suites(tmp_path)
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"none\.jsonl .* holds no row"):
        read_suites(tmp_path)
