"""Files that driver and actors have in common: whether they see the same directory.

Every actor writes to the disk of its own machine, and in a directory of its own where a path is
relative. What it writes elsewhere is missing in a checkpoint, and nobody would notice before the
checkpoint is needed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from conf.errors import SaveError, UserError, in_one_line

_PATIENCE_S = 5.0  # in which a shared file system shows a new file everywhere
_POLL_S = 0.1


@contextmanager
def signpost(directory: Path) -> Generator[tuple[str, str]]:
    """A file in the directory, for the body: its whole path, and what stands in it.

    Raises:
        SaveError: when the directory takes no file.
    """
    text = uuid.uuid4().hex
    path = (directory / f".{text}.partial").absolute()  # the next run removes what a kill leaves
    try:
        path.write_text(text, encoding="ascii")
        yield str(path), text
    except OSError as error:
        raise SaveError(f"{directory} cannot be written: {in_one_line(str(error))}") from error
    finally:
        path.unlink(missing_ok=True)


def sees(path: str, text: str) -> bool:
    """Whether this process finds such a file there."""
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return Path(path).read_text(encoding="ascii") == text
        except OSError:
            if time.monotonic() > end_s:
                return False
        time.sleep(_POLL_S)


def refuse_blind(directory: Path, key: str, blind: Mapping[str, str]) -> None:
    """Refuse a directory, which `key` gives, where some actors do not see what is in it.

    `blind` has their machines by name.

    Raises:
        UserError: naming them.
    """
    if blind:
        who = ", ".join(f"{name} ({node})" for name, node in blind.items())
        raise UserError(
            f"{key}: {directory.absolute()} is another directory for {who} than for this command, "
            "and ranks write their parts of a checkpoint themselves; give "
            f"{key}=DIR on a file system that all machines of the cluster share"
        )
