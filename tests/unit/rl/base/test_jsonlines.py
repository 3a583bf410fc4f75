"""Lines come back as they were added; a torn one is never read and never grown together."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from conf.errors import DataError
from rl.base import jsonlines
from rl.base.jsonlines import append_lines, given_lines, keep_lines, read_lines

pytestmark = pytest.mark.unit

TORN = ["{", '{"n": 3, "te', '{"n": 3}', "\0\0\0", "\xe9"]


def values(path: Path) -> list[object]:
    return [line.value for line in read_lines(path)]


def test_values_come_back_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.jsonl"
    append_lines(path, [{"n": 1}, "h\u00e9\n\ud800"])
    append_lines(path, [None])
    assert values(path) == [{"n": 1}, "h\u00e9\n\ud800", None]
    assert [line.place for line in read_lines(path)] == [f"{path}:{n}" for n in (1, 2, 3)]
    assert b"".join(line.raw for line in read_lines(path)) == path.read_bytes()
    assert path.read_bytes().isascii()


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert values(tmp_path / "none.jsonl") == []
    keep_lines(tmp_path / "none.jsonl", lambda line: True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_last_line_is_not_read(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n' + torn)
    assert values(path) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("whole", ['{"n": 1}\n', ""])
@pytest.mark.parametrize("block_bytes", [1, 4, 1 << 16])
def test_a_torn_last_line_is_cut_off_by_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str, whole: str, block_bytes: int
) -> None:
    monkeypatch.setattr(jsonlines, "_BLOCK_BYTES", block_bytes)
    path = tmp_path / "lines.jsonl"
    path.write_text(whole + torn)
    append_lines(path, [{"n": 2}])
    assert path.read_text() == whole + '{"n": 2}\n'


def test_lines_that_are_not_kept_go_and_so_does_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n":   1}\n{"n": 2}\n{"n": 3}\n{"n": 1')
    keep_lines(path, lambda line: line.value["n"] != 2)
    assert path.read_text() == '{"n":   1}\n{"n": 3}\n'  # as they were written
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_a_malformed_line_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n": 1}\nnonsense\n')
    with pytest.raises(DataError, match=r"lines\.jsonl:2:1: not JSON"):
        keep_lines(path, lambda line: True)
    assert path.read_text() == '{"n": 1}\nnonsense\n'


@pytest.mark.parametrize("raw", [b'"\xff"', b"[" * 100_000, b"{", b""])
def test_a_line_that_is_no_json_has_a_place(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(raw + b"\n")
    with pytest.raises(DataError, match=r"lines\.jsonl:1:\d+: "):
        values(path)


def test_a_file_that_a_person_made_may_have_blank_lines_and_no_last_end(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('\n{"n": 1}\n  \n{"n": 2}')
    assert list(given_lines(path)) == [(2, b'{"n": 1}\n'), (4, b'{"n": 2}')]
    for absent, what in ((tmp_path, "is a directory"), (tmp_path / "none", "does not exist")):
        with pytest.raises(DataError, match=f"{what}; give input=FILE"):
            list(given_lines(absent))


def test_a_long_file_is_never_held_in_memory(tmp_path: Path) -> None:
    """A run of weeks goes back to a checkpoint now and then, with all its lines on the disk."""
    path, one = tmp_path / "lines.jsonl", {"step": 7, "text": "x" * 1000}
    append_lines(path, [one] * 10_000)
    append_lines(path, [{"step": 8}])
    tracemalloc.start()
    keep_lines(path, lambda line: line.value["step"] < 8)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < path.stat().st_size / 20
    assert len(values(path)) == 10_000
