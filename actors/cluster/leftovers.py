"""What dead runs of this user left on this machine; the next that starts removes it.

Ray keeps a directory for each of its sessions, for ever. A run that starts Ray marks its own: a
scratch directory, locked while the run lives, says which it is. In it the processes that Ray starts
have their temporary files: most of them are killed in the end, and remove nothing themselves.
Sandboxes have scratch directories of the same kind. What bears no mark of ours stays, and so does
what belongs to a run that lives.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rl.base.scratch import Scratch, dead, made_s

_TEMPORARY = "tmp"  # its part for temporary files
_MARK = "ray"  # what a scratch directory that marks a session is for
_SESSION = re.compile(r"session_(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)_\d+_(\d+)")
_MARKED = re.compile(rf".*-{_MARK}-(\d+)-[^-]*")
_START_S = 600.0  # after which Ray has begun its session, or will not


@contextmanager
def marked_session() -> Generator[Path]:
    """A body that may start a session of Ray; what is left of it goes with the next start.

    It gets the directory for temporary files of its processes, which goes with the body.
    """
    mark = Scratch(f"{_MARK}-{os.getpid()}")
    own = mark.path / _TEMPORARY
    own.mkdir()
    for path in (mark.path, own):
        path.chmod(0o711)  # a sandboxed program must be able to reach its own
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        mark.release()


@contextmanager
def temporary_files_in(own: Path) -> Generator[None]:
    """Let processes that the body starts have their temporary files there.

    Sessions of Ray, and what torch has compiled, stay where they are kept without it.
    """
    compiled = Path(tempfile.gettempdir()) / f"torchinductor_{os.geteuid()}"
    variables = {
        "TMPDIR": str(own),
        "RAY_TMPDIR": str(_ray_directory().parent),
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(compiled)),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def remove_leftovers() -> str:
    """Remove what dead processes of ours left; a line about it, or "" where there was nothing."""
    found: Counter[str] = Counter()
    num_bytes = 0
    for scratch in dead():
        sessions = list(_sessions_of(scratch))
        found["sessions of Ray"] += len(sessions)
        found["scratch directories"] += _MARKED.fullmatch(scratch.name) is None
        for directory in [*sessions, scratch]:
            num_bytes += _size(directory)
            shutil.rmtree(directory, ignore_errors=True)
    what = ", ".join(f"{name}: {num}" for name, num in found.items() if num)
    return f"removed what earlier runs left here ({what}; {num_bytes >> 20} MiB)" if what else ""


def _sessions_of(mark: Path) -> Iterator[Path]:
    """The sessions that the process of a mark began after it: their names have pid and time."""
    process = _MARKED.fullmatch(mark.name)
    if process is None:
        return
    marked_s = made_s(mark)
    for path in _ray_directory().glob("session_*"):
        name = _SESSION.fullmatch(path.name)
        if name is None or name[2] != process[1] or path.is_symlink():
            continue
        began_s = datetime.strptime(name[1], "%Y-%m-%d_%H-%M-%S").astimezone().timestamp()
        if -1 <= began_s - marked_s <= _START_S and path.stat().st_uid == os.geteuid():
            yield path


def _ray_directory() -> Path:
    """Where Ray puts its sessions on Linux."""
    root = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return Path(root) / "ray"


def _size(directory: Path) -> int:
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)
