"""Given examples: the columns that are read, and what is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import DataError
from reward.pairs.pairs import Pair, write_pairs
from rl.problems.examples import Example, Kind, read_examples
from rl.types import Message

pytestmark = pytest.mark.unit

ASKED = {"role": "user", "content": "Add."}
SAID = {"role": "assistant", "content": "1 + 1"}
OTHER = {"role": "assistant", "content": "1 - 1"}
SYSTEM = {"role": "system", "content": "Be brief."}


def written(folder: Path, rows: list[Any], suffix: str = "jsonl") -> str:
    path = folder / f"data.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(folder: Path, row: Any, kind: Kind, suffix: str = "jsonl") -> Example:
    (example,) = read_examples(written(folder, [row], suffix), kind)
    return example


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Add.", "completion": "1 + 1"},
        {"prompt": [ASKED], "completion": [SAID]},
        {"messages": [ASKED, SAID]},
    ],
)
def test_answers_are_text_or_messages(tmp_path: Path, row: Any, suffix: str) -> None:
    example = read(tmp_path, row, "answers", suffix)
    assert example.prompt.messages == (Message("user", "Add."),)
    assert example.answers == ("1 + 1",)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Add.", "chosen": "1 + 1", "rejected": "1 - 1"},
        {"prompt": [ASKED], "chosen": [SAID], "rejected": [OTHER]},
        {"chosen": [ASKED, SAID], "rejected": [ASKED, OTHER]},
    ],
)
def test_pairs_are_text_or_messages(tmp_path: Path, row: Any, suffix: str) -> None:
    example = read(tmp_path, row, "pairs", suffix)
    assert example.prompt.messages == (Message("user", "Add."),)
    assert example.answers == ("1 + 1", "1 - 1")


def test_a_system_turn_and_earlier_turns_are_part_of_the_prompt(tmp_path: Path) -> None:
    example = read(tmp_path, {"messages": [SYSTEM, ASKED, OTHER, ASKED, SAID]}, "answers")
    assert [m.role for m in example.prompt.messages] == ["system", "user", "assistant", "user"]


def test_pairs_of_reward_models_are_read_as_they_are_and_their_programs_are_fenced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pairs.parquet"
    pair = Pair(prompt_id="a", question_content="Add.", code_pos="1 + 1", code_neg="1 - 1")
    write_pairs(path, [pair])
    (example,) = read_examples(str(path), "pairs")
    assert example.prompt.question == "Add."
    assert example.answers == ("```python\n1 + 1\n```", "```python\n1 - 1\n```")


@pytest.mark.parametrize(
    ("kind", "row", "fault"),
    [
        ("answers", {"prompt": "Add."}, "2:completion: the column is missing"),
        ("answers", {"prompt": " ", "completion": "x"}, "2:prompt: must be text that is not empty"),
        ("answers", {"prompt": [SAID], "completion": "x"}, "2:prompt: must end with a user's turn"),
        ("answers", {"prompt": [], "completion": "x"}, "2:prompt: must hold at least one turn"),
        ("answers", {"prompt": 3, "completion": "x"}, "2:prompt: must be a list"),
        ("answers", {"prompt": "a", "completion": [ASKED]}, "2:completion: must be text, or one a"),
        ("answers", {"messages": [ASKED]}, "2:messages: must be a conversation that ends with an"),
        ("answers", {"messages": [{"role": "tool", "content": "x"}]}, "2:messages: each turn must"),
        ("answers", ["a"], "2:-: must be one JSON object"),
        ("pairs", {"prompt": "a", "chosen": "x"}, "2:rejected: the column is missing"),
        ("pairs", {"prompt": "a", "chosen": "x", "rejected": "x"}, "2:rejected: must not be the c"),
        ("pairs", {"question_content": "a", "code_pos": "x"}, "2:code_neg: the column is missing"),
        (
            "pairs",
            {"chosen": [ASKED, SAID], "rejected": [SYSTEM, ASKED, OTHER]},
            "2:rejected: must have the turns of chosen",
        ),
    ],
)
def test_a_bad_row_is_refused_with_file_row_column_and_rule(
    tmp_path: Path, kind: Kind, row: Any, fault: str
) -> None:
    good = {"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"}
    path = written(tmp_path, [good, row])
    with pytest.raises(DataError) as error:
        read_examples(path, kind)
    (first, rule) = str(error.value).splitlines()
    assert first.startswith(f"{path}:{fault}")
    assert rule.startswith("recipe_args.data: rows need the columns prompt")


def test_a_file_that_is_none_or_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    for name, fault in (
        ("no.jsonl", "does not exist; give recipe_args.data=FILE"),
        ("", "is a directory"),
        ("empty.jsonl", "holds no row; give the columns"),
    ):
        with pytest.raises(DataError, match=fault):
            read_examples(str(tmp_path / name), "answers")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table([["a"], ["b"], ["c"]], ["prompt", "completion", "prompt"]), path)
    with pytest.raises(DataError, match=r"data\.parquet:-:prompt: the column is there more than"):
        read_examples(str(path), "answers")
