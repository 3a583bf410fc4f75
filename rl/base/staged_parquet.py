"""A parquet file written row by row, which appears only when it is complete."""

# pyarrow ships no type information; what leaves it is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq


class StagedParquet:
    """Rows go to disk in batches, so memory does not grow with the file.

    The file appears when the `with` block ends without an error; otherwise whatever was there
    before stays. Until then the rows are in a file of this process beside it, which it holds a lock
    on: what a process that was killed has left goes when the same file is written again.
    """

    def __init__(
        self, path: str | Path, schema: pa.Schema, batch_rows: int, batch_chars: int
    ) -> None:
        self.path = Path(path)
        self.num_rows = 0
        self._schema = schema
        self._batch_rows = batch_rows
        self._batch_chars = batch_chars
        self._staged = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        self._pending: list[Mapping[str, object]] = []
        self._pending_chars = 0
        self._file: BinaryIO | None = None
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def add_row(self, row: Mapping[str, object], num_chars: int) -> None:
        """Add one row; `num_chars` is about how large it is."""
        self._pending.append(row)
        self.num_rows += 1
        self._pending_chars += num_chars
        if len(self._pending) >= self._batch_rows or self._pending_chars >= self._batch_chars:
            self._flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._flush()
            if self._writer is not None:
                self._writer.close()
            if kind is None:
                self._staged.replace(self.path)
        finally:
            self._staged.unlink(missing_ok=True)
            if self._file is not None:
                self._file.close()

    def _flush(self) -> None:
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._remove_dead()
            self._file = self._staged.open("wb")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._writer = pq.ParquetWriter(self._file, self._schema)
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending, self._pending_chars = [], 0

    def _remove_dead(self) -> None:
        for left in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.partial"):
            try:
                with left.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    left.unlink()
            except OSError:  # another process writes it, or has removed it
                continue
