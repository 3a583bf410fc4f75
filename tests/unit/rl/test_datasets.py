"""Raw data sets become canonical problems, and their faults are named."""

import json
from pathlib import Path

import pytest

from rl.datasets import read_problems, split_by_id
from rl.errors import DataError, UserError
from rl.prompts import AssertTests, load_prompts, parse_tests, write_prompts

pytestmark = pytest.mark.unit

ROW = {
    "task_id": 7,
    "text": "Write a function to add two numbers.",
    "code": "def add(a, b): return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    "test_setup_code": "",
    "challenge_test_list": [],
}


def _file(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "mbpp.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_mbpp_row_becomes_a_problem_that_shows_one_test_and_keeps_all(tmp_path: Path) -> None:
    (prompt,) = read_problems("mbpp", _file(tmp_path, ROW))
    assert prompt.id == "mbpp-7"
    assert ROW["text"] in prompt.question
    assert "assert add(1, 2) == 3" in prompt.question
    assert "assert add(0, 0) == 0" not in prompt.question
    assert prompt.tests is not None
    tests = parse_tests(prompt.tests, prompt.entry_point)
    assert isinstance(tests, AssertTests)
    assert list(tests.asserts) == ROW["test_list"]


def test_what_is_written_is_a_canonical_file(tmp_path: Path) -> None:
    prompts = read_problems("mbpp", _file(tmp_path, ROW, ROW | {"task_id": 8}))
    write_prompts(tmp_path / "train.parquet", prompts)
    assert load_prompts(tmp_path / "train.parquet") == prompts


def test_a_row_without_a_field_is_reported_with_its_line(tmp_path: Path) -> None:
    broken = {key: value for key, value in ROW.items() if key != "test_list"}
    path = _file(tmp_path, ROW, broken)
    with pytest.raises(DataError, match=r"mbpp\.jsonl:2: mbpp needs 'test_list'"):
        read_problems("mbpp", path)
    assert len(read_problems("mbpp", path, max_bad_rows=1)) == 1


def test_an_unknown_source_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mbpp"):
        read_problems("nbpp", tmp_path)


def test_the_side_of_a_problem_does_not_depend_on_the_others(tmp_path: Path) -> None:
    rows = [ROW | {"task_id": number} for number in range(200)]
    prompts = read_problems("mbpp", _file(tmp_path, *rows))
    train, held_out = split_by_id(prompts, 0.25)
    assert len(train) + len(held_out) == 200
    assert 25 <= len(held_out) <= 75
    _, fewer = split_by_id(prompts[:100], 0.25)
    assert [p.id for p in fewer] == [p.id for p in held_out if p in prompts[:100]]
