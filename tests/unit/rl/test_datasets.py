"""Raw files become canonical problems, wherever they lie, and their faults are named together."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import DataError, UserError
from rl.problems.datasets import (
    SOURCES,
    Selection,
    Tally,
    iter_problems,
    read_problems,
    source_named,
    split_by_id,
)
from rl.problems.datasets.files import read_rows
from rl.problems.datasets.hub import raw_files
from rl.problems.prompts import AssertTests, load_prompts, parse_tests, write_prompts

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[3]

ROW = {
    "task_id": 7,
    "text": "Write a function to add two numbers.",
    "code": "def add(a, b): return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
OTHER = ROW | {"task_id": 8, "text": "Write a function to add two numbers again."}


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
    prompts = read_problems("mbpp", _file(tmp_path, ROW, OTHER))
    write_prompts(tmp_path / "train.parquet", prompts)
    assert load_prompts(tmp_path / "train.parquet") == prompts


def test_all_faults_are_reported_together_with_file_line_and_column(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        ROW,
        {key: value for key, value in OTHER.items() if key != "test_list"},
        OTHER | {"text": 5, "test_list": []},
        ["not", "a", "row"],
        OTHER | {"text": "\ud800"},
    )
    with path.open("a") as file:
        file.write('{"task_id": 3,\n')
    with pytest.raises(DataError) as caught:
        read_problems("mbpp", path)
    faults = str(caught.value).splitlines()
    assert faults[0].startswith(f"{path}:2:test_list: the column is missing (found: task_id, ")
    assert faults[1] == f"{path}:3:text: must be text that is not empty (5)"
    assert faults[2] == f"{path}:3:test_list: must be a list that is not empty ([])"
    assert faults[3] == f"{path}:4:-: must be one JSON object (['not', 'a', 'row'])"
    assert faults[4].startswith(f"{path}:5:text: must be text that UTF-8 can encode")
    assert faults[5].startswith(f"{path}:6:-: must be one JSON object: Expecting property name")
    assert faults[6].startswith("5 bad row(s) of 6, and max_bad_rows is 0")
    assert len(read_problems("mbpp", path, max_bad_rows=5)) == 1


def test_many_faults_are_cut_but_counted(tmp_path: Path) -> None:
    path = _file(tmp_path, *[{"task_id": number} for number in range(50)])
    with pytest.raises(DataError, match="and 80 more\n50 bad row"):
        read_problems("mbpp", path)


def test_a_file_without_problems_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no problem is left"):
        read_problems("mbpp", _file(tmp_path))


def test_one_id_for_two_problems_is_a_fault_and_a_repeat_is_not(tmp_path: Path) -> None:
    assert len(read_problems("mbpp", _file(tmp_path, ROW, ROW))) == 1
    path = _file(tmp_path, ROW, OTHER | {"task_id": 7})
    with pytest.raises(DataError, match=rf"{path}:2:task_id: must be unique; {path}:1 has it"):
        read_problems("mbpp", path)


def test_an_unknown_source_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nearest: mbpp"):
        read_problems("nbpp", tmp_path)
    assert source_named("live-code-bench").name == "live_code_bench"


OWN_SOURCE = """
from rl.problems.datasets import Source
from rl.problems.datasets.sources.mbpp import COLUMNS, mbpp

MINE = Source(name="mine", about="ours", read=mbpp, columns=COLUMNS)
"""


def test_a_source_from_outside_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_source.py").write_text(OWN_SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    assert len(read_problems("own_source:MINE", _file(tmp_path, ROW))) == 1
    with pytest.raises(DataError, match=r"data\.path: mine lies on no hub; give data.path=FILE"):
        read_problems("own_source:MINE", None)
    with pytest.raises(UserError, match="own_source:COLUMNS is a tuple; it must be a"):
        source_named("own_source:COLUMNS")
    with pytest.raises(UserError, match="source: 'no_such' cannot be imported"):
        source_named("no_such:MINE")


def test_the_side_of_a_problem_does_not_depend_on_the_others(tmp_path: Path) -> None:
    rows = [ROW | {"task_id": number} for number in range(200)]
    prompts = read_problems("mbpp", _file(tmp_path, *rows))
    train, held_out = split_by_id(prompts, 0.25)
    assert len(train) + len(held_out) == 200
    assert 25 <= len(held_out) <= 75
    _, fewer = split_by_id(prompts[:100], 0.25)
    assert [p.id for p in fewer] == [p.id for p in held_out if p in prompts[:100]]
    assert split_by_id(prompts, 1.0) == ([], prompts)
    assert split_by_id(prompts, 0.0) == (prompts, [])


# --- forms of files -----------------------------------------------------------------------------


def test_every_form_of_file_holds_the_same_problems(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in (ROW, OTHER))
    table = pa.Table.from_pylist([ROW, OTHER])
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "lines.json").write_text(lines)
    (tmp_path / "array.json").write_text("\ufeff\n" + json.dumps([ROW, OTHER], indent=1))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps([ROW, OTHER]).encode()))
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as stream:
        stream.write_table(table)
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as file:
        file.write_table(table)
    expected = read_problems("mbpp", tmp_path / "a.jsonl")
    assert len(expected) == 2
    for path in tmp_path.iterdir():
        assert read_problems("mbpp", path) == expected, path


def test_what_one_file_holds_changes_no_value_of_another(tmp_path: Path) -> None:
    """`datasets` casts files to the types of the first: `findings/datasets_first_types.sh`."""
    outputs = [[True], [2], [1.0, 1e-7], ["2024-01-01"], ["007", "2024-01-01T10:00:00+02:00"]]
    for number, values in enumerate(outputs):
        row = ROW | {"test_list": values}
        (tmp_path / f"train-{number}.jsonl").write_text(json.dumps(row) + "\n")
    files = raw_files(SOURCES["mbpp"], Selection(path=str(tmp_path), split="train"))
    read = [row.values["test_list"] for file in files for row in read_rows(file, ["test_list"])]
    assert repr(read) == repr(outputs)  # 1 is not True


def test_rows_of_arrays_and_parquet_are_counted_from_0(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([ROW, OTHER | {"text": ""}]))
    pq.write_table(pa.Table.from_pylist([ROW, OTHER | {"text": ""}]), tmp_path / "a.parquet")
    for name in ("a.json", "a.parquet"):
        with pytest.raises(DataError, match=rf"{name}:1:text: must be text"):
            read_problems("mbpp", tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.arrow", "a.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"[damaged")
    with pytest.raises(DataError, match=f"{name}: (cannot be read as|must be a JSON array)"):
        read_problems("mbpp", tmp_path / name)


def test_a_file_of_another_kind_or_without_any_known_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("task_id,text\n")
    with pytest.raises(DataError, match=r"a\.csv: must end in \.jsonl"):
        read_problems("mbpp", tmp_path / "a.csv")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"has none of the columns task_id, .*found: x"):
        read_problems("mbpp", tmp_path / "a.parquet")


def test_a_path_that_is_nothing_says_what_it_could_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a file nor a directory nor a hub id"):
        read_problems("mbpp", tmp_path / "missing.jsonl")
    with pytest.raises(DataError, match="neither a file nor a directory nor a hub id"):
        read_problems("mbpp", "data/missing.jsonl")


# --- directories, by way of `datasets` ----------------------------------------------------------

README = """---
configs:
- config_name: taco
  data_files:
  - split: train
    path: parts/taco-*
- config_name: codeforces
  data_files:
  - split: test
    path: parts/codeforces-*
---
"""


def _taco_row(problem: str) -> dict[str, str]:
    return {"problem": problem, "tests": json.dumps({"inputs": ["1"], "outputs": ["2"]})}


def test_a_directory_is_read_split_by_split(tmp_path: Path) -> None:
    (tmp_path / "train-0.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "test-0.jsonl").write_text(json.dumps(OTHER) + "\n")

    def ids(**options: str) -> list[str]:
        selection = Selection(path=str(tmp_path), **options)
        return [prompt.id for prompt in iter_problems(SOURCES["mbpp"], selection)]

    assert ids() == ["mbpp-7"]
    assert ids(split="test") == ["mbpp-8"]
    assert ids(files="*.jsonl") == ["mbpp-8", "mbpp-7"]
    with pytest.raises(
        DataError, match=r"has no split 'dev'; give data\.split= one of test, train"
    ):
        ids(split="dev")
    with pytest.raises(DataError, match=r"no file matches data\.files="):
        ids(files="*.parquet")


def test_a_fault_in_a_directory_names_the_raw_file(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "two.jsonl").write_text("\n" + json.dumps(OTHER | {"text": ""}) + "\n")
    with pytest.raises(DataError, match=rf"{tmp_path}/two\.jsonl:2:text: "):
        read_problems("mbpp", tmp_path)


def test_subsets_are_those_of_the_readme_or_folders(tmp_path: Path) -> None:
    clone, folders = tmp_path / "clone", tmp_path / "folders"
    (clone / "parts").mkdir(parents=True)
    (clone / "README.md").write_text(README)
    pq.write_table(pa.Table.from_pylist([_taco_row("A")]), clone / "parts" / "taco-0.parquet")
    pq.write_table(pa.Table.from_pylist([_taco_row("B")]), clone / "parts" / "codeforces-0.parquet")
    for subset in ("lcbv5", "primeintellect", "taco"):
        (folders / subset).mkdir(parents=True)
        (folders / subset / "train-0.jsonl").write_text(json.dumps(_taco_row(subset)) + "\n")

    def sources(path: Path, **options: str) -> list[str]:
        selection = Selection(path=str(path), **options)
        return [prompt.source for prompt in iter_problems(SOURCES["deepcoder"], selection)]

    assert sources(clone, subset="taco") == ["deepcoder/taco"]
    assert sources(clone, subset="codeforces", split="test") == ["deepcoder/codeforces"]
    with pytest.raises(DataError, match=r"'nope' not found.*data\.files=PATTERN"):
        sources(clone, subset="nope")
    all_of_them = ["deepcoder/lcbv5", "deepcoder/primeintellect", "deepcoder/taco"]
    assert sources(folders) == all_of_them
    assert sources(folders / "lcbv5" / "train-0.jsonl") == ["deepcoder/lcbv5"]


def test_a_loading_script_is_never_run(tmp_path: Path) -> None:
    clone = tmp_path / "mbpp"
    clone.mkdir()
    (clone / "mbpp.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').write('x')")
    (clone / "train.jsonl").write_text(json.dumps(ROW) + "\n")
    with pytest.raises(DataError, match=r"scripts are no longer supported.*data\.files=PATTERN"):
        read_problems("mbpp", clone)
    selection = Selection(path=str(clone), files="*.jsonl")
    assert len(list(iter_problems(SOURCES["mbpp"], selection))) == 1
    assert not (tmp_path / "ran").exists()


def test_the_hub_that_can_not_be_reached_is_an_error_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets  # noqa: PLC0415 - seconds, and for this test alone

    asked: dict[str, object] = {}

    def builder(path: str, **options: object) -> None:
        asked.update(options, path=path)
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    with pytest.raises(DataError, match=r"'agentica-org/.*ConnectionError: no network.*data\.path"):
        list(iter_problems(SOURCES["deepcoder"], Selection()))
    assert asked == {
        "path": "agentica-org/DeepCoder-Preview-Dataset",
        "name": "lcbv5",
        "revision": SOURCES["deepcoder"].revision,
    }
    with pytest.raises(DataError):
        list(iter_problems(SOURCES["live_code_bench"], Selection(revision="abc")))
    address = "hf://datasets/livecodebench/code_generation_lite@abc/test*.jsonl"
    assert asked["data_files"] == {"test": address}


def test_hub_files_keep_their_address_in_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets  # noqa: PLC0415 - seconds, and for this test alone

    (tmp_path / "3f5a").write_text(json.dumps(ROW | {"text": ""}) + "\n")  # as the cache names it
    address = "hf://datasets/google-research-datasets/mbpp@0a1b/full/train.jsonl"

    config = SimpleNamespace(data_files={datasets.Split.TRAIN: [address]})
    builder = SimpleNamespace(config=config)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    monkeypatch.setattr(
        datasets.DownloadManager,
        "download",
        lambda _, names: [str(tmp_path / "3f5a") for _ in names],
    )
    with pytest.raises(DataError, match=f"{address}:1:text: must be text"):
        list(iter_problems(SOURCES["mbpp"], Selection()))


# --- the registry -------------------------------------------------------------------------------


def test_every_source_is_documented_with_its_hub_id() -> None:
    page = (TREE / "docs" / "data.md").read_text()
    for source in SOURCES.values():
        assert f"`{source.name}`" in page
        assert f"`{source.hub_id}`" in page


def test_the_tally_counts_every_row(tmp_path: Path) -> None:
    tally = Tally()
    path = _file(tmp_path, ROW, ROW, OTHER, {"task_id": 1})
    list(iter_problems(SOURCES["mbpp"], Selection(path=str(path)), 1, tally))
    assert (tally.num_rows, tally.num_bad_rows, sum(tally.skipped.values())) == (4, 1, 1)
