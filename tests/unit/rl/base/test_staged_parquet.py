"""A parquet file appears whole; what killed writers left of it goes, what others write stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rl.base.staged_parquet import StagedParquet

pytestmark = pytest.mark.unit

SCHEMA = pa.schema([("a", pa.int64())])
# Another process that writes rows to the file, says so and waits.
WRITER = """
import sys, time
import pyarrow as pa
from rl.base.staged_parquet import StagedParquet
with StagedParquet(sys.argv[1], pa.schema([("a", pa.int64())]), 1, 100) as rows:
    rows.add_row({"a": 1}, 1)
    print("written", flush=True)
    time.sleep(60)
"""


def write(path: Path, *values: int) -> None:
    with StagedParquet(path, SCHEMA, batch_rows=1, batch_chars=100) as rows:
        for value in values:
            rows.add_row({"a": value}, 1)


def start_writer(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize("killed", [True, False])
def test_what_a_killed_writer_left_goes_and_a_living_one_keeps_its_file(
    tmp_path: Path, killed: bool
) -> None:
    path, other = tmp_path / "rows.parquet", tmp_path / "more.parquet.1.partial"
    other.touch()
    process = start_writer(path)
    try:
        if killed:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        write(path, 7, 8)
        staged = sorted(p.name for p in tmp_path.glob("rows.*.partial"))
        assert staged == ([] if killed else [f"rows.parquet.{process.pid}.partial"])
        assert pq.read_table(path)["a"].to_pylist() == [7, 8]
        assert other.exists()
    finally:
        process.kill()
        process.wait(10)


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write(path, 1)
    with pytest.raises(ValueError, match="stop"), StagedParquet(path, SCHEMA, 1, 100) as rows:
        rows.add_row({"a": 2}, 1)
        assert (tmp_path / f"rows.parquet.{os.getpid()}.partial").exists()
        raise ValueError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]
    assert pq.read_table(path)["a"].to_pylist() == [1]
