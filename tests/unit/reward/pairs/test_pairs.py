"""What pair files promise: problems are held out, nothing is lost, faults are named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import DataError, UserError
from reward.pairs.mining import MiningConfig, mine_pairs
from reward.pairs.pairs import (
    Pair,
    PairWriter,
    is_for_validation,
    load_pairs,
    read_pairs,
    split_by_prompt,
    write_pairs,
)
from tests.unit.reward.pairs.programs import program

pytestmark = pytest.mark.unit


def test_problems_are_held_out_never_pairs() -> None:
    pairs = [
        Pair(prompt_id=str(p), question_content="q", code_pos="a", code_neg=str(k))
        for p in range(20)
        for k in range(p % 4 + 1)
    ]
    train, held_out = split_by_prompt(pairs, 0.25, seed=0)
    train_ids, held_ids = {p.prompt_id for p in train}, {p.prompt_id for p in held_out}
    assert not train_ids & held_ids
    assert 0 < len(held_ids) < 20
    assert len(train) + len(held_out) == len(pairs)
    assert split_by_prompt(pairs[::-1], 0.25, seed=0)[1][::-1] == held_out
    with pytest.raises(UserError, match="share"):
        split_by_prompt(pairs, 1.5, seed=0)


def test_pairs_survive_the_file(tmp_path: Path) -> None:
    pairs = mine_pairs(
        [program("a = '\u00e9'", 4, step=3), program("b", 1, step=7)],
        MiningConfig(per_prompt=3, seed=0),
    )
    write_pairs(tmp_path / "deep" / "pairs.parquet", pairs)
    assert read_pairs(tmp_path / "deep" / "pairs.parquet") == pairs
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pairs.parquet"]
    write_pairs(tmp_path / "none.parquet", [])
    assert read_pairs(tmp_path / "none.parquet") == []


def test_a_file_with_the_three_public_columns_is_read(tmp_path: Path) -> None:
    columns = {
        "question_content": ["q", "q", "r"],
        "code_pos": ["a", "b", "c"],
        "code_neg": ["d", "e", "f"],
        "something_else": [1, 2, 3],
    }
    pq.write_table(pa.table(columns), tmp_path / "public.parquet")
    first, second, third = read_pairs(tmp_path / "public.parquet")
    assert (first.code_pos, first.code_neg, first.source) == ("a", "d", "unknown")
    assert first.prompt_id == second.prompt_id != third.prompt_id


def test_a_bad_file_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"question_content": ["q"], "code_pos": ["a"]}), path)
    with pytest.raises(DataError, match=r"bad\.parquet:-:code_neg"):
        read_pairs(path)
    columns = {"question_content": ["q", "q"], "code_pos": ["a", "a"], "code_neg": ["b", None]}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=r"bad\.parquet:1:code_neg"):
        read_pairs(path)
    path.write_text("not parquet")
    with pytest.raises(DataError, match="not a readable parquet"):
        read_pairs(path)


def test_no_name_is_no_data_set() -> None:
    with pytest.raises(DataError, match=r"^data: has no value; give a parquet file"):
        load_pairs("")


def _with(tmp_path: Path, **columns: object) -> str:
    pair = {"question_content": ["q"], "code_pos": ["a"], "code_neg": ["b"]}
    pq.write_table(pa.table(pair | columns), tmp_path / "pairs.parquet")
    return str(tmp_path / "pairs.parquet")


def test_further_columns_of_other_types_are_converted(tmp_path: Path) -> None:
    path = _with(tmp_path, prompt_id=[7], pos_step=[3.0], neg_tests_passed=[1], source=pa.nulls(1))
    (pair,) = read_pairs(path)
    assert (pair.prompt_id, pair.pos_step, pair.source) == ("7", 3, "unknown")
    assert pair.neg_tests_passed == 1.0
    split_by_prompt([pair], 0.5, seed=0)
    write_pairs(path, [pair])
    assert read_pairs(path) == [pair]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt_id", {"a": 1}),
        ("source", ["x"]),
        ("pos_step", "third"),
        ("pos_step", 1.5),
        ("neg_tests_passed", "all"),
    ],
)
def test_a_further_column_that_can_not_be_converted_is_named(
    tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(DataError, match=rf"pairs\.parquet:-:{name}: column must be of type .*out$"):
        read_pairs(_with(tmp_path, **{name: [value]}))


def test_about_the_share_is_held_out_and_a_side_depends_on_no_other_problem() -> None:
    sides = [is_for_validation(f"p{k}", 0.1, seed=3) for k in range(5000)]
    assert 400 < sum(sides) < 600
    assert not any(is_for_validation(f"p{k}", 0.0, seed=3) for k in range(100))
    assert all(is_for_validation(f"p{k}", 1.0, seed=3) for k in range(100))


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pair = Pair(prompt_id="a", question_content="q", code_pos="1", code_neg="2")
    write_pairs(path, [pair])
    with pytest.raises(RuntimeError, match="cut off"), PairWriter(path) as writer:
        writer.add(pair)
        writer.add(pair)
        raise RuntimeError("cut off")
    assert read_pairs(path) == [pair]
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    wrong = pa.array([b"\xff"]).cast(pa.string(), safe=False)
    columns = {"question_content": ["q"], "code_pos": wrong, "code_neg": ["b"]}
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"bad\.parquet: holds text that is not UTF-8"):
        read_pairs(tmp_path / "bad.parquet")


def test_pairs_are_loaded_from_files_mined_directories_and_data_sets(tmp_path: Path) -> None:
    pairs = [Pair(prompt_id="a", question_content="q", code_pos="1", code_neg=str(n)) for n in "23"]
    write_pairs(tmp_path / "file.parquet", pairs)
    assert load_pairs(str(tmp_path / "file.parquet")) == (pairs, None)
    write_pairs(tmp_path / "mined" / "train.parquet", pairs[:1])
    write_pairs(tmp_path / "mined" / "validation.parquet", pairs[1:])
    assert load_pairs(str(tmp_path / "mined")) == (pairs[:1], pairs[1:])
    columns = {"question_content": ["q"], "code_pos": ["a"], "code_neg": ["b"]}
    (tmp_path / "published" / "data").mkdir(parents=True)
    pq.write_table(pa.table(columns), tmp_path / "published/data/train-00000-of-00001.parquet")
    ((pair,), validation) = load_pairs(str(tmp_path / "published"))
    assert (pair.question_content, pair.code_pos, pair.code_neg, validation) == (
        "q",
        "a",
        "b",
        None,
    )
    (tmp_path / "broken").mkdir()
    row = '{"question_content": "q", "code_pos": "a", "code_neg": "b"}\n'
    (tmp_path / "broken" / "train.jsonl").write_text(row + '{"question_content": \n')
    with pytest.raises(DataError, match="broken is not readable as a data set"):
        load_pairs(str(tmp_path / "broken"))
    with pytest.raises(DataError, match="does not exist"):
        load_pairs(str(tmp_path / "nowhere"))
    # Not asked of the hub, though it has the form of an id.
    with pytest.raises(DataError, match=r"pairs: mine/validation\.parquet does not exist"):
        load_pairs("mine/validation.parquet", "pairs")
