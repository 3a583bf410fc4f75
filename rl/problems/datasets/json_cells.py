"""Cells of columnar files that are JSON: `datasets` writes what has no one Arrow type as JSON text.

A column of arguments (numbers here, texts there) is such a one. Its type shows it, `arrow.json`, at
whatever depth of lists and structs; where another tool has dropped that type, the features that
`datasets` keeps in the file's metadata still do. Without decoding, every argument would be a text.

`datasets` writes a text that reads as JSON without quotes (`findings/datasets_json_texts.sh`): the
texts 12 and [1] become a number and a list. In a list of calls such a cell is seen where other
calls have a text in its place, and refused: nobody can say any more what it was.
"""

# pyarrow ships no type information; what leaves it is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, cast

import pyarrow as pa

from rl.base.faults import show

Decode = Callable[[Any], Any]

_LOST = "`datasets` leaves out the quotes of texts that look like JSON: take the JSON lines"


class JsonCellError(ValueError):
    """A cell that is declared to be JSON is none; the message is `rule (value)`."""


def json_decoders(schema: pa.Schema) -> dict[str, Decode]:
    """For each column that holds JSON at some depth, what makes values of it.

    A decoder raises JsonCellError.
    """
    features = _features(schema)
    found = {field.name: _decoder(field.type, features.get(field.name)) for field in schema}
    return {name: decode for name, decode in found.items() if decode is not None}


def _features(schema: pa.Schema) -> Mapping[str, object]:
    """What `datasets` says of the columns; nothing where it did not write the file."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        value: Any = json.loads(text)
        features: Any = value["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return cast("dict[str, object]", features) if isinstance(features, dict) else {}


def _decoder(kind: pa.DataType, feature: object) -> Decode | None:
    about = cast("dict[str, object]", feature) if isinstance(feature, dict) else {}
    by_datasets = about.get("_type") == "Json"
    if by_datasets or getattr(kind, "extension_name", None) == "arrow.json":
        return _from_cell if by_datasets else _from_json
    if pa.types.is_dictionary(kind):
        return _decoder(kind.value_type, feature)
    if pa.types.is_struct(kind):
        parts = {
            kind.field(idx).name: _decoder(kind.field(idx).type, about.get(kind.field(idx).name))
            for idx in range(kind.num_fields)
        }
        return _of_struct({name: part for name, part in parts.items() if part is not None})
    if pa.types.is_map(kind):
        item = _decoder(kind.item_type, None)
        return item and (lambda pairs: pairs and [(key, item(value)) for key, value in pairs])
    if _is_list(kind):
        return _of_list(_decoder(kind.value_type, about.get("feature")))
    return None


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    views = (types.is_list_view, types.is_large_list_view)
    return any(test(kind) for test in (*tests, *views))


def _of_list(item: Decode | None) -> Decode | None:
    if item is _from_cell:
        return _from_call
    if item is _from_call:
        return _from_calls
    return item and (lambda values: values and [item(value) for value in values])


def _of_struct(parts: Mapping[str, Decode]) -> Decode | None:
    if not parts:
        return None

    def decode(value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        return {name: parts[name](v) if name in parts else v for name, v in value.items()}

    return decode


def _from_calls(calls: list[list[object] | None] | None) -> object:
    """Decode what `datasets` wrote of calls. Raises JsonCellError where a text may be none."""
    for place in zip_longest(*(call or () for call in calls or ())):
        cells = [cell for cell in place if isinstance(cell, str)]
        doubtful = [cell for cell in cells if not cell.startswith('"')]
        if doubtful and len(doubtful) < len(cells):
            raise JsonCellError(
                f"may be a text here, as in other calls; {_LOST} ({doubtful[0]!r:.60})"
            )
    return calls and [_from_call(call) for call in calls]


def _from_call(call: list[object] | None) -> object:
    return call and [_from_cell(cell) for cell in call]


def _from_cell(value: object) -> object:
    try:
        return _from_json(value)
    except JsonCellError as error:
        raise JsonCellError(f"{error}; {_LOST}") from error


def _from_json(value: object) -> object:
    if not isinstance(value, str):  # null, or what a reader has decoded already
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise JsonCellError(f"must be JSON, as its type says: {error} ({show(value)})") from error
