"""Manifest of a checkpoint: what its files were when they were written, and whether they still are.

The files are pickles, which run whatever whoever wrote them wants when they are loaded. So besides
size and SHA-256 of every file it counts who owns it and who may write to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rl.base.json_text import parse_json

FILE = "manifest.json"
_FORMAT = 2  # 1 had the step alone
_BLOCK_BYTES = 2**20
_SETTLED_S = 2.0  # a file that changes twice within a tick of the clock keeps its stamp
_THREADS = 8  # SHA-256 lets go of Python's lock; a disk likes several readers
_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH

T = TypeVar("T")


class Entry(NamedTuple):
    """A file as it was when it was written."""

    size: int  # bytes
    sha256: str


class _BadManifestError(Exception):
    """What is wrong with a manifest."""


def seal(directory: Path, step: int) -> None:
    """Write the manifest of a complete directory, which gets its name after this.

    Nobody but their owner may write to its files any more.
    """
    found = list(_tree(directory))
    for path, _ in found:
        _close_to_others(path)
    files = [path for path, status in found if stat.S_ISREG(status.st_mode)]
    digests = _in_threads(_digest, files)
    entries = {
        path.relative_to(directory).as_posix(): Entry(path.stat().st_size, digest)
        for path, digest in zip(files, digests, strict=True)
    }
    manifest = directory / FILE
    manifest.write_text(_encode(step, entries), encoding="ascii")
    _close_to_others(manifest)


def _close_to_others(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OF_OTHERS)


def faults(directory: Path, step: int) -> list[str]:
    """What is wrong with the checkpoint of a step, a phrase each; none where it is as written.

    Sizes are compared first, so that nothing long is read of a checkpoint that is cut short.
    """
    try:
        foreign = _foreign(directory)
        if foreign:
            return foreign
        entries = _read(directory / FILE, step)
        found = list(_misfits(directory, entries))
        return found or list(_altered(directory, entries))
    except _BadManifestError as error:
        return [f"{FILE} {error}"]
    except OSError as error:
        return [f"{error.filename} cannot be read ({error.strerror})"]


def _tree(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The directory and everything below it, links not followed, in the order of names."""

    def refuse(error: OSError) -> None:
        raise error

    yield directory, directory.lstat()
    for folder, folders, files in os.walk(directory, onerror=refuse):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            yield path, path.lstat()


def _foreign(directory: Path) -> list[str]:
    """What somebody else may have put there, or could still alter."""
    parent = directory.parent
    found = [(parent, parent.stat()), *_tree(directory)]
    faults = ((path, _not_ours(status)) for path, status in found)
    return [f"{_shown(path, directory)} {fault}" for path, fault in faults if fault]


def _shown(path: Path, directory: Path) -> str:
    inside = path != directory and path.is_relative_to(directory)
    return path.relative_to(directory).as_posix() if inside else f"its directory {path}"


def _not_ours(status: os.stat_result) -> str | None:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return "is a link, and a checkpoint has none"
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "is neither a file nor a directory"
    if status.st_uid not in (os.geteuid(), 0):
        return f"was written by another user, {_user(status.st_uid)}"
    if mode & stat.S_IWOTH:
        return "can be written by every user (chmod o-w, once you know that nobody did)"
    return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"number {number}"


def _misfits(directory: Path, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Files that are missing, not in the manifest, or of another size."""
    sizes = {
        path.relative_to(directory).as_posix(): status.st_size
        for path, status in _tree(directory)
        if stat.S_ISREG(status.st_mode) and path != directory / FILE
    }
    for name in sorted({*sizes, *entries}):
        if name not in sizes:
            yield f"{name} is missing"
        elif name not in entries:
            yield f"{name} is not in the manifest: somebody put it there"
        elif short := entries[name].size - sizes[name]:
            what = "short" if short > 0 else "too long"
            yield f"{name} is {abs(short)} bytes {what} ({sizes[name]} of {entries[name].size})"


def _altered(directory: Path, entries: Mapping[str, Entry]) -> Iterator[str]:
    names = list(entries)
    digests = _in_threads(_known_digest, [directory / name for name in names])
    for name, digest in zip(names, digests, strict=True):
        if digest != entries[name].sha256:
            yield f"{name} has other content than when it was written"


def _encode(step: int, entries: Mapping[str, Entry]) -> str:
    """The text of a manifest; its last entry is a digest of the others."""
    files = {name: entry._asdict() for name, entry in entries.items()}
    value: dict[str, object] = {"format": _FORMAT, "step": step, "files": files}
    digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
    return json.dumps(value | {"sha256": digest}, indent=1)


def _read(path: Path, step: int) -> dict[str, Entry]:
    """The entries of a manifest, which has to be, byte for byte, what is written for a step."""
    try:
        text = path.read_text(encoding="ascii")
        value: Any = parse_json(text.encode())
        if "format" not in value and value.keys() == {"step"}:
            raise _BadManifestError(_of_before(path.parent))
        if value["format"] != _FORMAT:
            raise _BadManifestError(f"is of format {value['format']}, and {_FORMAT} is read here")
        if value["step"] != step:
            raise _BadManifestError(f"is that of step {value['step']}")
        entries = {name: _entry(entry) for name, entry in value["files"].items()}
        if text != _encode(step, entries):
            raise _BadManifestError("is not as it was written")
    except FileNotFoundError as error:
        raise _BadManifestError("is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _BadManifestError("cannot be read: it is torn, or none") from error
    return entries


def _entry(fields: Mapping[str, object]) -> Entry:
    size, digest = fields["size"], fields["sha256"]
    if not isinstance(size, int) or not isinstance(digest, str):
        raise TypeError("a size is a whole number, and a digest is a text")
    return Entry(size, digest)


def _of_before(directory: Path) -> str:
    fix = f"; its weights can be started from (model.path={directory / 'hf'})"
    return "has no digests: an older version wrote it" + fix * (directory / "hf").is_dir()


def _in_threads(work: Callable[[Path], T], paths: list[Path]) -> list[T]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, paths))


def _known_digest(path: Path) -> str:
    """The digest of a file, read once by a process for as long as nobody touches the file."""
    status = path.lstat()
    if time.time() - status.st_ctime < _SETTLED_S:
        return _digest(path)
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _digest_of(path.absolute(), stamp)


@lru_cache(maxsize=4096)
def _digest_of(path: Path, stamp: tuple[int, ...]) -> str:
    """The digest of a file as it was at its `stamp`, which is part of the key."""
    return _digest(path)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
