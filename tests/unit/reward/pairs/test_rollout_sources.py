"""Programs are found in whatever keeps them, with their run, and faults have a place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import DataError, UserError
from reward.pairs.rollout_sources import (
    RolloutFile,
    count_rollouts,
    find_rollouts,
    iter_codes,
    run_directories,
)
from rl.run.rollouts import RolloutRow, write_rollouts
from rl.types import Verdict

pytestmark = pytest.mark.unit


def _row(code: str, verdict: Verdict | None = None, **more: Any) -> RolloutRow:
    given: dict[str, Any] = {
        "step": 3,
        "prompt_id": "p",
        "question": "q?",
        "sample_idx": 0,
        "text": "",
        "code": code,
        "reason": "ok",
        "score": None,
        "reward": 0.0,
        "advantage": None,
        "num_tokens": 1,
        "finish": "stop",
        "policy_version": 2,
        "verdict": verdict,
    }
    return RolloutRow(**(given | more))


def _run(root: Path, name: str, rows: list[RolloutRow]) -> Path:
    directory = root / "outputs" / "grpo" / name
    write_rollouts(directory / "rollouts" / "step-000003.parquet", rows)
    (directory / "config.yaml").write_text("{}")
    return directory


def _sample(**changes: object) -> dict[str, object]:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "add"}]
    sample: dict[str, object] = {
        "problem_id": "m/1",
        "problem": "0",
        "sample_idx": 4,
        "text": "",
        "reason": "ok",
        "seconds": 0.1,
        "detail": "",
        "finish": "stop",
        "num_tokens": 3,
        "prompt": turns,
        "code": "a = 1",
        "verdict": Verdict.WRONG_ANSWER,
        "num_passed": 1,
        "num_tests": 4,
    }
    return sample | changes


def test_a_run_directory_gives_its_rollouts_under_the_name_of_the_run(tmp_path: Path) -> None:
    directory = _run(tmp_path, "s1", [_row("a", Verdict.PASSED), _row("", None), _row("b")])
    (file,) = find_rollouts([str(directory)])
    assert file.run == "grpo/s1"
    assert run_directories([file]) == [directory]
    codes = list(iter_codes(file))
    assert [code.code for code in codes] == ["a", "b"]
    assert codes[0].labelled().passed
    assert (codes[0].step, codes[0].policy_version, codes[0].run) == (3, 2, "grpo/s1")
    with pytest.raises(ValueError, match="no verdict"):
        codes[1].labelled()


def test_directories_files_and_patterns_name_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s1", "s2"):
        _run(tmp_path, name, [_row("a", Verdict.PASSED)])
    inputs = ["outputs", "outputs/grpo/s1", "outputs/*/s2/rollouts/*.parquet"]
    assert [file.run for file in find_rollouts(inputs)] == ["grpo/s1", "grpo/s2"]
    absolute = str(tmp_path / "outputs/**/step-00000[0-9].parquet")
    assert [file.run for file in find_rollouts([absolute])] == ["grpo/s1", "grpo/s2"]
    with pytest.raises(UserError, match=r"input: 'outputs/nothing\*' names no rollouts"):
        find_rollouts(["outputs/nothing*"])


def test_samples_of_an_evaluation_have_shares_of_tests(tmp_path: Path) -> None:
    path = tmp_path / "mbpp.samples.jsonl"
    path.write_text("".join(json.dumps(_sample(num_passed=n)) + "\n" for n in (1, 3)))
    (file,) = find_rollouts([str(path)])
    first, second = (code.labelled() for code in iter_codes(file))
    assert (first.question, first.prompt_id, first.run) == ("add", "m/1", "mbpp")
    assert (first.tests_passed, second.tests_passed) == (0.25, 0.75)


def test_what_has_no_verdict_is_counted_by_problem(tmp_path: Path) -> None:
    rows = [
        _row("a", Verdict.PASSED),
        _row("b"),
        _row("c"),
        _row("d", prompt_id="o"),
        _row("e", Verdict.SANDBOX_ERROR, prompt_id="s"),
        _row("u", Verdict.UNJUDGED, prompt_id="s"),
        _row(""),
    ]
    files = find_rollouts([str(_run(tmp_path, "s1", rows))])
    counts = count_rollouts(files)
    assert (counts.num_rows, counts.num_codes) == (7, 6)
    assert (counts.num_undecided, counts.num_unjudged) == (1, 1)
    with pytest.raises(ValueError, match="has no verdict"):
        next(code for code in iter_codes(files[0]) if code.code == "u").labelled()
    assert counts.unverified == {"p", "o"}
    assert set(counts.problems) == {"p", "o", "s"}


def test_two_problems_under_one_id_are_refused(tmp_path: Path) -> None:
    _run(tmp_path, "s1", [_row("a", Verdict.PASSED)])
    _run(
        tmp_path,
        "s2",
        [_row("b", Verdict.PASSED), _row("c", Verdict.WRONG_ANSWER, question="other")],
    )
    with pytest.raises(DataError, match=r"s2.*:2:question: problem 'p' is another text in .*s1"):
        count_rollouts(find_rollouts([str(tmp_path)]))


_COLUMNS: dict[str, list[Any]] = {
    "prompt_id": ["p"],
    "question": ["q"],
    "code": ["a"],
    "reason": ["ok"],
    "step": [1],
    "policy_version": [0],
    "sample_idx": [0],
}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"code": ["a"], "question": ["q"]}, "prompt_id: column is missing"),
        (
            {
                "prompt_id": ["p", "p"],
                "question": ["q", None],
                "code": ["a", "b"],
                "reason": ["ok", "ok"],
                "step": [1, 1],
                "policy_version": [0, 0],
                "sample_idx": [0, 1],
            },
            ":2:question: must be text",
        ),
        ({**_COLUMNS, "step": ["1"]}, ":1:step: must be a whole number"),
        ({**_COLUMNS, "verdict": ["passed"]}, ":1:verdict: 'passed' is none of PASSED, "),
        ({**_COLUMNS, "num_tests": ["3"]}, ":1:num_tests: must be a whole number or null"),
    ],
)
def test_faults_of_a_parquet_file_have_a_place(
    tmp_path: Path, columns: dict[str, list[Any]], words: str
) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=words):
        count_rollouts([RolloutFile(path, "run")])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": "q"}, ":1:prompt: has another type"),
        ({"prompt": [{"role": "user"}]}, ":1:prompt: has a turn without role or content"),
        ({"prompt": []}, ":1:prompt: has no user turn"),
        ({"num_passed": "1"}, ":1:num_passed: has another type"),
        ({"verdict": "RIGHT"}, ":1:verdict: 'RIGHT' is none of"),
    ],
)
def test_faults_of_samples_have_a_place(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "one.samples.jsonl"
    path.write_text(json.dumps(_sample(**change)) + "\n")
    with pytest.raises(DataError, match=words):
        count_rollouts([RolloutFile(path, "run")])


@pytest.mark.parametrize("text", [b'"\xff"', b"[" * 100_000, b"1" * 5_000, b"{"])
def test_a_line_that_is_no_json_has_a_place(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "one.samples.jsonl"
    path.write_bytes(text + b"\n")
    with pytest.raises(DataError, match=r"one\.samples\.jsonl:1:\d+: "):
        count_rollouts([RolloutFile(path, "run")])


def test_what_a_run_held_out_is_found_only_where_it_is_named(tmp_path: Path) -> None:
    run = _run(tmp_path, "s1", [_row("a", Verdict.PASSED)])
    for folder in ("evaluation", "probe"):
        write_rollouts(run / folder / "step-000003.parquet", [_row("b", Verdict.PASSED)])
    (file,) = find_rollouts([str(tmp_path)])
    assert file.path.parent == run / "rollouts"
    (file,) = find_rollouts([str(run / "evaluation")])
    assert file.path.parent == run / "evaluation"


def test_all_unreadable_files_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "one.samples.jsonl").write_text("{}\n")
    (tmp_path / "two.parquet").write_text("no")
    with pytest.raises(DataError) as caught:
        count_rollouts(find_rollouts([str(tmp_path)]))
    assert "one.samples.jsonl:1:1: not a sample of an evaluation" in str(caught.value)
    assert "two.parquet: is not a readable parquet file" in str(caught.value)


def test_rollouts_without_a_program_are_refused(tmp_path: Path) -> None:
    files = find_rollouts([str(_run(tmp_path, "s1", [_row("")]))])
    with pytest.raises(DataError, match="none of 1 rollouts has a valid program"):
        count_rollouts(files)
