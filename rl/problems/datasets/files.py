"""Rows of a raw file: JSON lines, a JSON array (both also gzipped), parquet or Arrow."""

# pyarrow ships no type information; what leaves it is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from conf.errors import DataError
from rl.base.faults import held_twice, show
from rl.problems.datasets.json_cells import Decode, JsonCellError, json_decoders
from rl.problems.datasets.rows import Row

SUFFIXES = (".jsonl", ".json", ".parquet", ".arrow")

_HEAD_BYTES = 256
_BATCH_ROWS = 16  # the tests of one problem may have 100 MB


@dataclass(frozen=True, slots=True)
class RawFile:
    """One file of a data set."""

    name: str  # as messages call it: its path, or its address on the hub
    path: Path
    subset: str | None = None


def suffix_of(name: str) -> str | None:
    """The suffix that tells how a file is read, without `.gz`; None for other files."""
    suffix = Path(name.removesuffix(".gz")).suffix
    return suffix if suffix in SUFFIXES else None


def read_rows(file: RawFile, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a file; what is no row comes with a fault for column `-`.

    Raises:
        DataError: when the file cannot be read at all.
    """
    suffix = suffix_of(file.name)
    if suffix is None:
        raise DataError(f"{file.name}: must end in {', '.join(SUFFIXES)}, or in one of them + .gz")
    try:
        yield from _READERS[suffix](file, columns)
    except FileNotFoundError as error:
        raise DataError(f"{file.name}: no such file; give data.path=FILE") from error
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{file.name}: cannot be read as {suffix[1:]}: {error}") from error


def _json_lines(file: RawFile, columns: Sequence[str]) -> Iterator[Row]:
    del columns  # a line has to be parsed as a whole
    with _opened(file) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _json_row(file, number, line)


def _json_array(file: RawFile, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of an array, of one object, or of lines: the hub has files of each kind named .json."""
    with _opened(file) as content:
        head = content.read(_HEAD_BYTES)
        is_array = head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")  # a mark, white space
        text = head + content.read() if is_array else b""
    if not is_array:
        yield from _json_lines(file, columns)
        return
    try:
        rows = cast("list[Any]", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file.name}: must be a JSON array of rows: {error}") from error
    for idx, values in enumerate(rows):
        yield _row(file, idx, values)


def _parquet(file: RawFile, columns: Sequence[str]) -> Iterator[Row]:
    with pq.ParquetFile(file.path, arrow_extensions_enabled=True) as parquet:
        present = _present(file, columns, parquet.schema_arrow.names)
        decoders = json_decoders(parquet.schema_arrow)
        batches = parquet.iter_batches(batch_size=_BATCH_ROWS, columns=present)
        yield from _batches(file, batches, decoders)


def _arrow(file: RawFile, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of an Arrow stream, which `datasets` writes, or of an Arrow file."""
    with pa.memory_map(str(file.path)) as content:
        is_file = content.read(6) == b"ARROW1"
        content.seek(0)
        reader = pa.ipc.open_file(content) if is_file else pa.ipc.open_stream(content)
        table = reader.read_all()  # mapped, not copied
        present = _present(file, columns, table.column_names)
        batches = table.select(present).to_batches(max_chunksize=_BATCH_ROWS)
        yield from _batches(file, iter(batches), json_decoders(table.schema))


_READERS: dict[str, Callable[[RawFile, Sequence[str]], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".parquet": _parquet,
    ".arrow": _arrow,
}


def _opened(file: RawFile) -> AbstractContextManager[BinaryIO]:
    if file.name.endswith(".gz"):
        return cast("AbstractContextManager[BinaryIO]", gzip.open(file.path))
    return file.path.open("rb")


def _json_row(file: RawFile, number: int, line: bytes) -> Row:
    try:
        return _row(file, number, json.loads(line))
    except (ValueError, RecursionError) as error:
        row = Row(file.name, number, {}, file.subset)
        row.add_fault("-", f"must be one JSON object: {error} ({show(line)})")
        return row


def _row(file: RawFile, number: int, values: object) -> Row:
    if isinstance(values, dict):
        return Row(file.name, number, cast("dict[str, Any]", values), file.subset)
    row = Row(file.name, number, {}, file.subset)
    row.add_fault("-", f"must be one JSON object ({show(values)})")
    return row


def _batches(
    file: RawFile, batches: Iterator[pa.RecordBatch], decoders: Mapping[str, Decode]
) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for idx in range(batch.num_rows):
            row = Row(file.name, number, {}, file.subset)
            row.values = {
                name: _cell(batch.column(name)[idx], name, row, decoders.get(name))
                for name in batch.schema.names
            }
            yield row
            number += 1


def _cell(scalar: pa.Scalar, column: str, row: Row, decode: Decode | None) -> object:
    try:
        value = scalar.as_py()
        return value if decode is None else decode(value)
    except JsonCellError as error:
        row.add_fault(column, str(error))
        return None
    except UnicodeDecodeError as error:  # no writer has to check what it calls a string
        row.add_fault(column, f"must be UTF-8 text ({error})")
        return None


def _present(file: RawFile, columns: Sequence[str], found: Sequence[str]) -> list[str]:
    """The columns that a table has. Raises DataError where it has none of them, or one twice."""
    present = [name for name in columns if name in found]
    if not present:
        raise DataError(
            f"{file.name}: has none of the columns {', '.join(columns)} (found: {', '.join(found)})"
        )
    for fault in held_twice(file.name, found, present).values():
        raise DataError(fault)
    return present
