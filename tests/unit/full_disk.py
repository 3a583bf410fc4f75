"""A disk that is full at one moment: one write, sync or renaming of this process fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest


class FullDisk:
    """Every operation on files that changes something is counted, and one of them fails.

    A write that fails has taken half of what it was given, as that of a full disk may.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails_at: int | None = None
        self.num_done = 0
        for name in ("fsync", "rename", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))
        opened = Path.open

        def open_counted(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            file = opened(path, mode, *args, **kwargs)
            return file if set(mode) <= set("rbt") else _File(file, self)

        monkeypatch.setattr(Path, "open", open_counted)

    @property
    def has_failed(self) -> bool:
        return self.fails_at is not None and self.num_done > self.fails_at

    def arm(self, number: int) -> None:
        """From here on operation `number`, counted from 0, fails, and only that one."""
        self.fails_at, self.num_done = number, 0

    def due(self) -> bool:
        self.num_done += 1
        return self.num_done - 1 == self.fails_at

    def _counted(self, operation: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.due():
                raise no_space()
            return operation(*args, **kwargs)

        return call


class _File:
    def __init__(self, file: Any, disk: FullDisk) -> None:
        self._file = file
        self._disk = disk

    def write(self, content: Any) -> int:
        if self._disk.due():
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            raise no_space()
        return self._file.write(content)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def no_space() -> OSError:
    """What a full disk says."""
    return OSError(errno.ENOSPC, "No space left on device")
