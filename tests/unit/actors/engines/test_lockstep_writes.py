"""A write that fails leaves no rank waiting for another."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from actors.engines.stored.lockstep_writes import LockstepWrites

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_after_a_failed_write_nothing_more_is_written(error: Exception):
    done: list[str] = []

    def fail() -> None:
        raise error

    write = LockstepWrites()
    write(lambda: done.append("first"))
    write(fail)
    write(lambda: done.append("after"))
    assert done == ["first"]
    assert str(error).split(":")[0] in write.fault


def test_a_defect_is_not_taken_for_a_full_disk():
    with pytest.raises(ZeroDivisionError):
        LockstepWrites()(lambda: 1 / 0)
