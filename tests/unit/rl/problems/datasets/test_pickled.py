"""A pickle gives its text, and can do nothing else."""

import base64
import json
import os
import pickle
import zlib
from pathlib import Path

import pytest

from rl.problems.datasets.pickled import packed_json, pickled_text
from rl.problems.datasets.rows import RuleError

pytestmark = pytest.mark.unit

CASES = [{"input": "1\n2", "output": "3", "testtype": "stdin"}]


def pack(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("text", ["", "abc", "caf\u00e9 \u20ac", "x" * 300, "y" * 70_000])
def test_every_protocol_gives_the_text_back(protocol: int, text: str) -> None:
    assert pickled_text(pickle.dumps(text, protocol)) == text


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_refused_and_does_not_run(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in (_Attack(tmp_path / "x"), ["[]", _Attack(tmp_path / "x")]):
            with pytest.raises(RuleError, match="one string and nothing else"):
                packed_json(pack(pickle.dumps(value, protocol)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [b"[]", ["[]"], {"a": 1}, None, 5, ("[]", "[]"), bytearray(3)])
def test_anything_but_one_string_is_refused(value: object) -> None:
    with pytest.raises(RuleError):
        pickled_text(pickle.dumps(value))


def test_damaged_pickles_are_refused() -> None:
    whole = pickle.dumps("[1, 2, 3]")
    for end in range(len(whole)):
        with pytest.raises(RuleError):
            pickled_text(whole[:end])
    with pytest.raises(RuleError):
        pickled_text(b"\xff\xfe" + whole)


def test_json_is_read_as_it_is_or_packed() -> None:
    text = json.dumps(CASES)
    assert packed_json(text) == CASES
    assert packed_json(pack(pickle.dumps(text))) == CASES


@pytest.mark.parametrize(
    "value",
    [None, 3, [], "", "[1,", "%%%", "AAAA", pack(b"")[:-4], pack(pickle.dumps("no JSON"))],
)
def test_what_is_neither_is_a_broken_rule(value: object) -> None:
    with pytest.raises(RuleError):
        packed_json(value)


def test_a_text_that_unpacks_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rl.problems.datasets.pickled.MAX_TEXT_BYTES", 1000)
    with pytest.raises(RuleError, match="at most 1000 bytes"):
        packed_json(pack(pickle.dumps(json.dumps("x" * 5000))))
