"""The text inside a pickle, without running the pickle.

A pickle is a program: loading one from a stranger runs what it says. LiveCodeBench publishes its
private tests as a pickle of one string, and a pickle of one string needs few instructions. Here
they are read one by one, and any other is refused; nothing is ever executed or imported.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickle
import pickletools
import zlib
from typing import Any

from rl.problems.datasets.rows import RuleError

MAX_TEXT_BYTES = 2 << 30  # the largest published suite unpacks to about 200 MB

_STRINGS = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_HARMLESS = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}


def pickled_text(data: bytes) -> str:
    """The one string that `data`, a pickle, holds.

    Raises:
        RuleError: when it holds anything else; nothing of it was run.

    >>> import pickle
    >>> pickled_text(pickle.dumps("[1, 2]"))
    '[1, 2]'
    """
    found: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _STRINGS and isinstance(argument, str):
                found.append(argument)
            elif opcode.name not in _HARMLESS:
                raise RuleError("a pickle must hold one string and nothing else", opcode.name)
    except (ValueError, IndexError, pickle.UnpicklingError) as error:
        if isinstance(error, RuleError):
            raise
        raise RuleError(f"must be a whole pickle: {error}", data) from error
    if len(found) != 1:
        raise RuleError("a pickle must hold one string and nothing else", f"{len(found)} strings")
    return found[0]


def packed_json(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """The value of JSON text, or of base64 text of a compressed pickle of JSON text."""
    if not isinstance(value, str):
        raise RuleError("must be JSON text, or base64 text of a compressed pickle", value)
    text = value
    try:
        if not value.lstrip().startswith(("[", "{")):  # which base64 never has
            text = pickled_text(_unpacked(value))
        return json.loads(text)
    except (ValueError, RecursionError, zlib.error, binascii.Error) as error:
        if isinstance(error, RuleError):
            raise
        raise RuleError(f"must be JSON, or a compressed pickle of it: {error}", value) from error


def _unpacked(value: str) -> bytes:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(value, validate=True), MAX_TEXT_BYTES)
    if unpacker.unconsumed_tail:
        raise RuleError(f"must unpack to at most {MAX_TEXT_BYTES} bytes", value)
    if not unpacker.eof:
        raise RuleError("must be a whole compressed text; it was cut off", value)
    return data
