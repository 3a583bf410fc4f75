"""Rollout files hold every judged completion, and come back as they were written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import DataError
from rl.run.rollouts import (
    LongText,
    read_groups,
    read_rollouts,
    read_rows,
    rollout_rows,
    sample_rows,
    schema_of,
    write_rollouts,
)
from rl.types import Extraction, Finish, JudgedGroup, JudgeKind, Part, Reason, Score, Verdict
from tests.unit.rl.fakes import group_of_tests, make_group, make_judged, make_prompts, recipe

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
        scores_G=(Score(value=None), Score(value=0.5, verdict=Verdict.WRONG_ANSWER)),
    )
    write_rollouts(tmp_path / "step.parquet", list(rollout_rows(1, [judged], None)))
    rows = read_rollouts(tmp_path / "step.parquet")
    assert [(row.judge, row.verdict) for row in rows] == [
        ("execution", None),
        ("execution", Verdict.WRONG_ANSWER),
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


@dataclasses.dataclass(frozen=True)
class Program:
    """Some of the columns, and one that no file has."""

    run: str
    code: LongText
    verdict: Verdict | None = None


def test_a_reader_takes_the_columns_that_it_names(tmp_path: Path):
    path = tmp_path / "some.parquet"
    pq.write_table(pa.table({"code": ["a", "b"], "verdict": ["TIMEOUT", None]}), path)
    assert list(read_rows(path, Program, run="r")) == [
        Program("r", "a", Verdict.TIMEOUT),
        Program("r", "b"),
    ]
    assert schema_of(Program).field("code").type == pa.large_string()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["a"]}, r"some\.parquet:-:code: column is missing"),
        ({"code": ["a", None]}, r"some\.parquet:2:code: must be text \(None\)"),
        ({"code": ["a"], "verdict": ["RIGHT"]}, ":1:verdict: 'RIGHT' is none of PASSED, "),
    ],
)
def test_a_fault_of_a_file_has_a_place(tmp_path: Path, columns: dict[str, list[str]], words: str):
    path = tmp_path / "some.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=words):
        list(read_rows(path, Program, run="r"))


def test_the_columns_of_a_file_stay_what_scripts_read(tmp_path: Path):
    write_rollouts(tmp_path / "none.parquet", [])
    schema = pq.read_schema(tmp_path / "none.parquet")
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    assert kinds == {
        "step": "int32",
        "prompt_id": "string",
        "question": "large_string",
        "sample_idx": "int32",
        "text": "large_string",
        "code": "large_string",
        "reason": "string",
        "score": "double",
        "reward": "double",
        "advantage": "double",
        "num_tokens": "int32",
        "finish": "string",
        "policy_version": "int32",
        "judge": "string",
        "verdict": "string",
        "num_passed": "int32",
        "num_tests": "int32",
        "task": "string",
        "parts": "string",
        "language": "string",
    }


def test_a_row_of_a_sum_has_what_each_judge_said(tmp_path: Path):
    parts = {
        name: Part(
            weight=2.0,
            scores_G=(Score(value=None), Score(value=1.0)),
            rewards_G=np.array(rewards, np.float32),
            judge=JudgeKind.OWN,
        )
        for name, rewards in (("quality", (0.0, 0.1)), ("short", (1.0, 0.5)))
    }
    first, second = batch()
    path = tmp_path / "step-000001.parquet"
    of_sum = dataclasses.replace(first, parts=parts)
    write_rollouts(path, list(rollout_rows(1, [of_sum, second], None)))
    rows = read_rollouts(path)
    assert [json.loads(row.parts or "null") for row in rows] == [
        {"quality": 0.0, "short": 1.0},
        {"quality": float(np.float32(0.1)), "short": 0.5},
        None,
        None,
    ]


def bundle() -> list[JudgedGroup]:
    """Three programs of a problem and four tests that were run on them; the first is unreadable."""
    problem = make_prompts(1)[0]
    passed = np.array([[0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], np.bool_)
    programs = make_judged(make_group(problem, 3), (1.0, 0.0, 0.0), (True, False, False))
    return [programs, group_of_tests(problem, passed, num_unreadable=1)]


def test_a_test_says_which_programs_pass_it_and_of_which_problem_they_are(tmp_path: Path):
    path = tmp_path / "step-000001.parquet"
    rows = list(rollout_rows(1, bundle(), None))
    write_rollouts(path, rows)
    assert read_rollouts(path) == rows
    assert [row.passed_by for row in rows] == [None] * 4 + ["110", "010", "100"]
    assert {(row.prompt_id, row.problem_id, row.problem) for row in rows} == {
        ("p0", None, "p0"),
        ("p0#test", "p0", "p0"),
    }
    schema = pq.read_schema(path)
    assert {str(schema.field(name).type) for name in ("problem_id", "passed_by")} == {"string"}


def test_a_step_that_asks_for_programs_alone_has_no_column_of_matrices(tmp_path: Path):
    rows = list(rollout_rows(1, batch(), None))
    write_rollouts(tmp_path / "step.parquet", rows)
    assert not {"problem_id", "passed_by"} & set(pq.read_schema(tmp_path / "step.parquet").names)
    assert read_rollouts(tmp_path / "step.parquet") == rows


def test_a_file_with_matrices_gives_its_groups_back_and_one_of_before_them_is_read(tmp_path: Path):
    path = with_tokens(tmp_path / "step.parquet", bundle())
    read = read_groups(path, {})
    assert [group.group.prompt.id for group in read] == ["p0", "p0#test"]
    assert [group.judge for group in read] == [JudgeKind.RM, JudgeKind.MATRIX]
    assert [len(group.scores_G) for group in read] == [3, 4]
    pq.write_table(pq.read_table(path).drop_columns(["problem_id", "passed_by"]), path)
    assert {(row.problem, row.passed_by) for row in read_rollouts(path)} == {
        ("p0", None),
        ("p0#test", None),
    }


def with_tokens(path: Path, groups: Sequence[JudgedGroup]) -> Path:
    write_rollouts(path, list(rollout_rows(1, groups, None)), groups)
    return path


def odd_batch() -> list[JudgedGroup]:
    """Groups with all that a step may learn from: masks, supports, cut and empty answers."""
    rng = np.random.default_rng(0)
    groups = batch()
    completions = [
        dataclasses.replace(
            made,
            token_ids=rng.integers(0, 2**31 - 1, size, dtype=np.int32),
            rollout_logprobs=-rng.random(size, dtype=np.float32),
            support_TK=rng.integers(-1, 9, (size, 3), dtype=np.int32),
            finish=Finish.LENGTH if size == 5 else Finish.STOP,
        )
        for made, size in zip(groups[0].group.completions_G, (5, 0), strict=True)
    ]
    group = dataclasses.replace(groups[0].group, completions_G=tuple(completions))
    masked = np.array([True, False])
    rewards = np.array([0.1, 1 / 3], np.float32)
    return [
        dataclasses.replace(groups[0], group=group, masked_G=masked, rewards_G=rewards),
        groups[1],
    ]


def test_what_a_step_learned_from_comes_back_bit_for_bit(tmp_path: Path):
    groups = odd_batch()
    read = read_groups(with_tokens(tmp_path / "step.parquet", groups), {})
    assert len(read) == len(groups)
    for ours, theirs in zip(read, groups, strict=True):
        assert ours.rewards_G.tobytes() == theirs.rewards_G.tobytes()
        assert list(ours.taught_G) == list(theirs.taught_G)
        assert ours.scores_G == theirs.scores_G
        assert [e.code for e in ours.extractions_G] == [e.code for e in theirs.extractions_G]
        assert np.array_equal(ours.group.prompt_token_ids, theirs.group.prompt_token_ids)
        for one, other in zip(ours.group.completions_G, theirs.group.completions_G, strict=True):
            assert one.token_ids.tobytes() == other.token_ids.tobytes()
            assert one.rollout_logprobs.tobytes() == other.rollout_logprobs.tobytes()
            assert (one.finish, one.policy_version) == (other.finish, other.policy_version)
            if other.support_TK is not None and len(other.token_ids):
                assert one.support_TK is not None
                assert np.array_equal(one.support_TK, other.support_TK)


def test_the_same_is_taught_by_groups_that_were_read(tmp_path: Path):
    groups = odd_batch()
    read = read_groups(with_tokens(tmp_path / "step.parquet", groups), {})
    (ours,), (theirs,) = (recipe().teach(1, one, {}).updates for one in (read, groups))
    assert len(ours.samples) == len(theirs.samples) == 2
    for one, other in zip(ours.samples, theirs.samples, strict=True):
        assert one.advantage == other.advantage
        assert one.token_ids.tobytes() == other.token_ids.tobytes()
        assert one.num_prompt_tokens == other.num_prompt_tokens


def test_parts_of_a_sum_come_back_with_the_weights_of_the_run(tmp_path: Path):
    (judged, _) = batch()
    rewards = np.array([0.1, 0.7], np.float32)
    part = Part(weight=-0.5, scores_G=judged.scores_G, rewards_G=rewards, judge=JudgeKind.RM)
    of_sum = dataclasses.replace(judged, judge=JudgeKind.SUM, parts={"quality": part})
    (read,) = read_groups(with_tokens(tmp_path / "step.parquet", [of_sum]), {"quality": -0.5})
    assert read.judge is JudgeKind.SUM
    assert read.parts["quality"].weight == -0.5
    assert read.parts["quality"].rewards_G.tobytes() == rewards.tobytes()


def test_rows_with_tokens_are_rows_as_before_and_a_file_without_them_says_what_it_lacks(
    tmp_path: Path,
):
    rows = list(rollout_rows(1, batch(), None))
    assert read_rollouts(with_tokens(tmp_path / "with.parquet", batch())) == rows
    write_rollouts(tmp_path / "without.parquet", rows)
    with pytest.raises(
        DataError, match=r"prompt_token_ids: column is missing.*rollout_tokens=true"
    ):
        read_groups(tmp_path / "without.parquet", {})


def test_the_rows_that_are_shown_go_by_the_seed_and_keep_their_order():
    groups = [make_judged(make_group(one, 4), (0, 1, 2, 3)) for one in make_prompts(5)]
    rows = list(rollout_rows(7, groups, None))
    shown = sample_rows(rows, 6, seed=0)
    assert len(shown) == 6
    assert shown == [row for row in rows if row in shown] == sample_rows(rows[:], 6, seed=0)
    assert shown != sample_rows(rows, 6, seed=1)
    assert len({row.prompt_id for row in shown}) > 1
    assert sample_rows(rows, 99, seed=0) == rows
