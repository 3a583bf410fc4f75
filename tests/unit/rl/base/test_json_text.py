"""Whatever is wrong with a text that should be JSON has a line, a column and a rule."""

from __future__ import annotations

import json
import math

import pytest

from rl.base.json_text import JsonFault, parse_json

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("raw", "line", "column", "rule"),
    [
        (b"{oops", 1, 2, "not JSON (Expecting property name"),
        (b"[1,\n  2,\n oops]", 3, 2, "not JSON (Expecting value)"),
        (b"", 1, 1, "not JSON (Expecting value)"),
        (b'{"a": 1} {"b": 2}', 1, 10, "not JSON (Extra data)"),
        (b'{"prompt": "\xff"}', 1, 13, "not UTF-8"),
        (b'{\n"p": "ab\xff"}', 2, 9, "not UTF-8"),
        (b"[" * 100_000, 1, 1, "not JSON ("),
        (b"9" * 200_000, 1, 1, "not JSON ("),  # beyond `rl.base.process`
    ],
)
def test_a_fault_has_a_place_and_a_rule(raw, line, column, rule):
    with pytest.raises(JsonFault) as caught:
        parse_json(raw)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(rule)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_can_not_write_back_are_refused_where_asked(number):
    raw = f'{{"a": [{number}]}}'.encode()
    assert not math.isfinite(parse_json(raw)["a"][0])
    with pytest.raises(JsonFault, match=f"{number} is not a number of JSON"):
        parse_json(raw, finite=True)


@pytest.mark.parametrize("value", [None, True, 7, 1.5, "é\ud800", [], {"a": [{"b": None}]}])
def test_json_is_read_as_it_was_written(value):
    raw = json.dumps(value).encode()
    assert parse_json(raw) == value
    assert parse_json(raw, finite=True) == value
