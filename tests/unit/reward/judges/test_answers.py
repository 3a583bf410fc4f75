"""A file of answers is read whole and checked before anything is started."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from conf.errors import DataError, UserError
from reward.judges.answers import AnswerGroup, judged_rows, read_answers
from reward.judges.judge import Judged
from rl.problems.prompts import language_of
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import rollout_rows, write_rollouts
from rl.types import Extraction, JudgeKind, Message, Prompt, Reason, Score, Task
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def write(source: Path, *rows: object) -> None:
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fault(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_answers(source)
    return str(caught.value)


def test_consecutive_lines_of_one_prompt_are_one_group_and_every_line_is_kept(source: Path):
    prompts = ["a", "a", "b", "a"]
    rows = [{"prompt": p, "response": str(i), "extra": i} for i, p in enumerate(prompts)]
    write(source, *rows)
    groups = read_answers(source)
    assert [group.prompt.question for group in groups] == ["a", "b", "a"]
    assert [row for group in groups for row in group.rows] == rows
    assert len({group.prompt.id for group in groups}) == 3


def test_a_prompt_is_a_text_or_messages(source: Path):
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    write(source, {"prompt": "q", "response": "r"}, {"prompt": turns, "response": "r"})
    first, second = read_answers(source)
    assert first.prompt.messages == (Message("user", "q"),)
    assert second.prompt.messages == (Message("system", "s"), Message("user", "q"))


def test_empty_lines_do_not_count_but_keep_the_line_numbers(source: Path):
    source.write_text('\n{"prompt": "q", "response": "r"}\n  \n{oops\n', encoding="utf-8")
    assert fault(source).startswith(f"{source}:4:2: not JSON")


@pytest.mark.parametrize(
    ("row", "place", "rule"),
    [
        ([], "1", "an object"),
        ({"prompt": "q"}, "response", "a text is needed"),
        ({"prompt": "q", "response": 3}, "response", "a text is needed"),
        ({"response": "r"}, "prompt", "is needed"),
        ({"prompt": None, "response": "r"}, "prompt", "is needed"),
        ({"prompt": [], "response": "r"}, "prompt", "a user turn"),
        ({"prompt": [{"role": "system", "content": "s"}], "response": "r"}, "prompt", "user turn"),
        ({"prompt": [{"role": "user"}], "response": "r"}, "prompt", "role and content"),
        ({"prompt": [{"role": "user", "content": 1}], "response": "r"}, "prompt", "role and"),
        ({"prompt": ["q"], "response": "r"}, "prompt", "messages"),
        ({"prompt": "\ud800", "response": "r"}, "prompt", "lone surrogate"),
        ({"prompt": "q", "response": "r", "language": "C++"}, "language", "python, c, cpp"),
    ],
)
def test_a_malformed_row_is_named_by_file_line_and_column(source: Path, row, place, rule):
    write(source, {"prompt": "q", "response": "r"}, row)
    message = fault(source)
    assert message.startswith(f"{source}:2:{place}: ")
    assert rule in message


def test_all_faults_of_a_row_are_named(source: Path):
    write(source, {"prompt": 3}, {"prompt": "q", "response": "r"}, {})
    assert [line.removeprefix(f"{source}:") for line in fault(source).splitlines()[:-1]] == [
        "1:prompt: a text, or messages with role and content and a user turn, is needed (3)",
        "1:response: a text is needed (None)",
        "3:prompt: a text, or messages with role and content and a user turn, is needed (None)",
        "3:response: a text is needed (None)",
    ]


def test_a_row_says_in_what_language_its_program_is(source: Path):
    rows = [{"prompt": "q", "response": "r"}, {"prompt": "q", "response": "r", "language": "go"}]
    write(source, rows[0], rows[1], rows[1], {**rows[0], "language": None})
    groups = read_answers(source)
    assert [language_of(group.prompt) for group in groups] == ["python", "go", "python"]
    assert groups[1].rows == [rows[1], rows[1]]


def test_bytes_that_are_no_text_are_named_by_file_line_and_column(source: Path):
    source.write_bytes(b'{"prompt": "q", "response": "r"}\n{"prompt": "\xff"}\n')
    assert fault(source).splitlines()[0] == f"{source}:2:13: not UTF-8"


@pytest.mark.parametrize("number", ["NaN", "1e999", "9" * 200_000])
def test_a_number_that_can_not_be_written_back_is_refused(source: Path, number: str):
    source.write_text(f'{{"prompt": "q", "response": "r", "weight": {number}}}\n')
    assert fault(source).startswith(f"{source}:1:1: not JSON")


def test_every_malformed_line_is_named_up_to_twenty(source: Path):
    source.write_text("{oops\n" * 30, encoding="utf-8")
    lines = fault(source).splitlines()
    assert [line.split(": ")[0] for line in lines[:-1]] == [f"{source}:{n}:2" for n in range(1, 21)]
    assert lines[-1] == "30 of 30 lines are malformed"


def test_what_is_no_file_and_what_holds_no_line_are_named(source: Path):
    assert fault(source).startswith(f"input: {source} does not exist")
    assert fault(source.parent).startswith(f"input: {source.parent} is a directory")
    source.touch()
    assert fault(source).startswith(f"input: {source} holds no line")


def test_what_is_written_is_the_line_and_what_was_found_out_about_it():
    rows = [{"response": "r0", "id": 7}, {"response": "r1"}]
    group = AnswerGroup(Prompt(id="line-1", messages=(Message("user", "q"),)), rows)
    judged = Judged(
        extractions_G=(
            Extraction(reason=Reason.OK, code="print(1)"),
            Extraction(reason=Reason.NO_BLOCK),
        ),
        scores_G=(Score(value=-1.5), Score(value=None)),
        rewards_G=np.array([0.25, 0.0], dtype=np.float32),
        judge=JudgeKind.RM,
        num_executed=0,
    )
    found = {"code": "print(1)", "valid": True, "reason": "ok", "score": -1.5, "reward": 0.25}
    none = {"code": "", "valid": False, "reason": "no_block", "score": None, "reward": 0.0}
    assert list(judged_rows(group, judged)) == [rows[0] | found, rows[1] | none]
    json.dumps(list(judged_rows(group, judged)))


def test_programs_of_a_run_are_scored_again_in_the_language_of_their_problems(tmp_path: Path):
    (prompt,) = make_prompts(1)
    asked = dataclasses.replace(prompt, meta='{"language": "rust"}')
    path = RunDirectory(tmp_path).rollout_file(RolloutFolder.TRAINING, 1)
    judged = [make_judged(make_group(one, 1), (1.0,)) for one in (asked, prompt)]
    write_rollouts(path, list(rollout_rows(1, judged[:1], None)))
    write_rollouts(path.with_stem("step-000002"), list(rollout_rows(2, judged[1:], None)))
    assert [language_of(group.prompt) for group in read_answers(tmp_path)] == ["rust", "python"]


def test_the_programs_of_a_run_are_answers_with_what_the_run_found_of_them(tmp_path: Path) -> None:
    first, second = (make_judged(make_group(prompt, 2), (0.5, 1.0)) for prompt in make_prompts(2))
    traced = dataclasses.replace(
        second,
        group=dataclasses.replace(
            second.group, ask=dataclasses.replace(second.group.ask, task=Task.TRACE)
        ),
    )
    path = RunDirectory(tmp_path).rollout_file(RolloutFolder.TRAINING, 3)
    write_rollouts(path, list(rollout_rows(3, [first, second, traced], None)))
    groups = read_answers(tmp_path)
    assert [group.prompt.id for group in groups] == ["p0", "p1"]
    assert groups[0].prompt.question == first.group.prompt.question
    assert [row["response"] for row in groups[0].rows] == [
        completion.text for completion in first.group.completions_G
    ]
    assert [(row["step"], row["run_reward"]) for row in groups[1].rows] == [(3, 0.5), (3, 1.0)]
    assert read_answers(path) == groups
    with pytest.raises(UserError, match="names no rollouts"):
        read_answers(tmp_path / "rollouts" / "none.parquet")
