"""The command writes canonical files, or nothing and a list of faults."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from launch.common.cli import main_simple
from launch.prepare_data import PrepareArgs, run
from rl.problems.prompts import load_prompts

pytestmark = pytest.mark.unit


def row(number: int) -> dict[str, object]:
    return {
        "question": f"Print {number}.",
        "test_input": [""],
        "test_output": [str(number)],
        "test_time_limit": 1,
    }


def prepare(tmp_path: Path, source: str, rows: Sequence[object], *more: str) -> int:
    (tmp_path / "raw.json").write_text(json.dumps(rows))
    given = (f"source={source}", f"data.path={tmp_path}/raw.json", f"output={tmp_path}/out")
    return main_simple(PrepareArgs, run, [*given, *more])


def test_a_benchmark_is_held_out_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(tmp_path, "code-contests", [row(n) for n in range(9)] + [row(3)]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["test.parquet"]
    assert len(load_prompts(tmp_path / "out" / "test.parquet")) == 9
    said = capsys.readouterr().out
    assert "9 problems" in said
    assert "1 rows skipped: repeats of an earlier problem" in said


def test_the_share_can_be_chosen_and_old_files_do_not_stay(tmp_path: Path) -> None:
    rows: list[object] = [row(n) for n in range(40)]
    assert prepare(tmp_path, "code_contests", rows, "eval_share=0.5") == 0
    train, test = (load_prompts(tmp_path / "out" / f"{name}.parquet") for name in ("train", "test"))
    assert len(train) + len(test) == 40
    assert not {p.id for p in train} & {p.id for p in test}
    assert prepare(tmp_path, "code_contests", rows, "eval_share=0") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train.parquet"]


def test_faults_end_with_code_2_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[object] = [row(0), row(1) | {"test_output": []}, row(2) | {"question": None}]
    assert prepare(tmp_path, "code_contests", rows) == 2
    said = capsys.readouterr().err
    assert "raw.json:1:test_output: inputs and outputs must be equally many" in said
    assert "raw.json:2:question: must be text" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert prepare(tmp_path, "code_contests", rows, "data.max_bad_rows=2") == 0
    assert len(load_prompts(tmp_path / "out" / "test.parquet")) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("source=nope", "'nope' is not one of"),
        ("data.path=nope.jsonl", "neither a file nor a directory nor a hub id"),
        ("eval_share=2", "eval_share"),
    ],
)
def test_bad_arguments_end_with_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, said: str
) -> None:
    assert prepare(tmp_path, "mbpp", [], given) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["/x/*.json", "'[**'", "a**"])
def test_what_is_no_pattern_inside_the_directory_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pattern: str
) -> None:
    given = (f"data.path={tmp_path}", f"data.files={pattern}")
    assert prepare(tmp_path, "code_contests", [row(0)], *given) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: data.files: '{pattern.strip(chr(39))}' is no pattern inside")
