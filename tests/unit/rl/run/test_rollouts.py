"""Rollout files hold every judged completion, and come back as they were written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rl.run.rollouts import read_rollouts, rollout_rows, write_rollouts
from rl.types import Extraction, JudgeKind, Reason, Score
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


def batch():
    """Two prompts; the first answer of the first is invalid."""
    first, second = (
        make_judged(make_group(prompt, 2, version=3), (0.0, 0.1)) for prompt in make_prompts(2)
    )
    invalid = Extraction(reason=Reason.UNCLOSED, detail="line 3")
    valid = Extraction(reason=Reason.OK, code="print('h\u00e9')")
    first = dataclasses.replace(
        first, extractions_G=(invalid, valid), scores_G=(Score(value=None), Score(value=-2.5))
    )
    return [first, second]


def test_rows_survive_the_file_with_every_type_and_missing_value(tmp_path: Path):
    advantages = [np.array([-0.05, 0.05], np.float32), np.array([-0.05, 0.05], np.float32)]
    rows = list(rollout_rows(7, batch(), advantages))
    path = tmp_path / "rollouts" / "step-000007.parquet"
    write_rollouts(path, rows)
    assert read_rollouts(path) == rows
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_row_says_what_became_of_its_completion():
    rows = list(rollout_rows(7, batch(), [np.array([-1, 1], np.float32)] * 2))
    assert [(r.prompt_id, r.sample_idx) for r in rows] == [
        ("p0", 0),
        ("p0", 1),
        ("p1", 0),
        ("p1", 1),
    ]
    invalid, valid = rows[:2]
    assert (invalid.reason, invalid.code, invalid.score) == ("unclosed", "", None)
    assert (valid.reason, valid.code, valid.score) == ("ok", "print('h\u00e9')", -2.5)
    assert [row.advantage for row in rows] == [-1.0, 1.0, -1.0, 1.0]
    assert {(row.step, row.policy_version, row.num_tokens, row.finish) for row in rows} == {
        (7, 3, 4, "stop")
    }
    assert invalid.question == "question 0"
    assert {(row.judge, row.verdict) for row in rows} == {("rm", None)}


def test_a_row_has_the_verdict_on_a_program_that_was_run(tmp_path: Path):
    judged = dataclasses.replace(
        batch()[0],
        judge=JudgeKind.EXECUTION,
        scores_G=(Score(value=None), Score(value=0.5, verdict="WRONG_ANSWER")),
    )
    write_rollouts(tmp_path / "step.parquet", list(rollout_rows(1, [judged], None)))
    rows = read_rollouts(tmp_path / "step.parquet")
    assert [(row.judge, row.verdict) for row in rows] == [
        ("execution", None),
        ("execution", "WRONG_ANSWER"),
    ]


def test_a_file_of_before_judges_were_recorded_is_read(tmp_path: Path):
    path = tmp_path / "old.parquet"
    write_rollouts(path, list(rollout_rows(1, batch(), None)))
    pq.write_table(pq.read_table(path).drop_columns(["judge", "verdict"]), path)
    assert {(row.judge, row.verdict) for row in read_rollouts(path)} == {("", None)}


def test_an_evaluation_has_no_advantages(tmp_path: Path):
    rows = list(rollout_rows(0, batch(), None))
    write_rollouts(tmp_path / "evaluation.parquet", rows)
    assert [row.advantage for row in read_rollouts(tmp_path / "evaluation.parquet")] == [None] * 4


def test_an_empty_batch_is_an_empty_file(tmp_path: Path):
    write_rollouts(tmp_path / "none.parquet", [])
    assert read_rollouts(tmp_path / "none.parquet") == []
