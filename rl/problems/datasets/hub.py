"""Files of a data set: one file, those of a directory, or those of a hub repository.

Hugging Face `datasets` says which files of a directory or repository belong to a split, and
downloads them; the rows are read by `files`. It could also make a table of them, but then one
malformed line would end the whole reading with no row named, and 100 MB of tests would be copied
into its cache once more. Loading scripts are never run: `datasets` refuses them, and sources whose
repositories still have one are found by file pattern.
"""

# `datasets` is typed in part only; what leaves it is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from conf.errors import DataError
from rl.base.files import lack_of
from rl.problems.datasets.files import RawFile, suffix_of
from rl.problems.datasets.registry import Source

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".arrow": "arrow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Where the raw data lie, and which part of them is wanted; None is the source's default."""

    path: str | None = None  # a file, a directory or a hub id
    subset: str | None = None
    split: str | None = None
    files: str | None = None  # a pattern inside the directory or the repository
    revision: str | None = None  # of the hub


def raw_files(source: Source, selection: Selection) -> list[RawFile]:
    """The files to read, in order.

    Raises:
        DataError: when there are none, naming what was found instead.
    """
    path = selection.path or source.hub_id
    if path is None:
        raise DataError(f"data.path: {source.name} lies on no hub; give data.path=FILE")
    local = Path(path)
    if lack_of(path) is None:
        return [RawFile(path, local, selection.subset or _subset_of(local, source))]
    is_hub = not os.path.isdir(path)
    if is_hub and (suffix_of(path) is not None or not _HUB_ID.fullmatch(path)):
        raise DataError(
            f"data.path: {path!r} is neither a file nor a directory nor a hub id (owner/name); "
            "give data.path=FILE"
        )
    subsets = (selection.subset,) if selection.subset else source.subsets or (None,)
    found: list[RawFile] = []
    for subset in subsets:
        root = local / subset if subset and (local / subset).is_dir() else local
        part = _Part(source, selection, path if is_hub else str(root), is_hub)
        inner = subset if root == local else None
        names = part.matching() if part.pattern else part.of_split(inner)
        files = part.downloaded(names)
        found += [
            RawFile(name, file, subset or _subset_of(file, source))
            for name, file in zip(names, files, strict=True)
        ]
    return found


class _Part:
    """The files of one subset."""

    def __init__(self, source: Source, selection: Selection, path: str, is_hub: bool) -> None:
        self._path = path
        self._is_hub = is_hub
        self._split = selection.split
        self._default_split = source.split
        own = path == source.hub_id
        self._revision = selection.revision or (source.revision if own else None)
        pattern = selection.files or source.files
        if pattern == source.files and not (own or _has_match(path, pattern, self._wanted)):
            pattern = None  # the pattern is that of the source's own repository
        self.pattern = pattern and pattern.replace("{split}", self._wanted)

    @property
    def _wanted(self) -> str:
        return self._split or self._default_split

    def matching(self) -> list[str]:
        """Paths or addresses of the files that match the pattern."""
        pattern = self.pattern or "*"
        if not self._is_hub:
            names = [str(file) for file in sorted(_matches(Path(self._path), pattern))]
        else:
            at = f"@{self._revision}" if self._revision else ""
            address = f"hf://datasets/{self._path}{at}/{pattern}"
            builder = _BUILDERS.get(suffix_of(pattern) or "", "json")
            files = self._data_files(builder, data_files={self._wanted: address})
            names = files[self._wanted]
        if not names:
            raise DataError(f"{self._path}: no file matches data.files={pattern}")
        return names

    def of_split(self, subset: str | None) -> list[str]:
        """Paths or addresses of the files of the split, as README, folders and names tell it."""
        files = self._data_files(self._path, name=subset, revision=self._revision)
        if self._wanted in files:
            return files[self._wanted]
        if self._split is None and len(files) == 1:  # files whose names tell no split
            return next(iter(files.values()))
        raise DataError(
            f"{self._path}: has no split {self._wanted!r}; "
            f"give data.split= one of {', '.join(sorted(files))}"
        )

    def downloaded(self, names: Sequence[str]) -> list[Path]:
        """The files on this machine."""
        if not self._is_hub:
            return [Path(name) for name in names]
        from datasets import DownloadManager  # noqa: PLC0415 - seconds, and not for files

        with _hub_errors(self._path):
            return [Path(path) for path in cast("Any", DownloadManager().download(list(names)))]

    def _data_files(self, builder: str, **options: Any) -> dict[str, list[str]]:  # noqa: ANN401
        from datasets import load_dataset_builder  # noqa: PLC0415 - seconds, and not for files

        given = {name: value for name, value in options.items() if value is not None}
        with _hub_errors(self._path):
            config = cast("Any", load_dataset_builder(builder, **given)).config
            splits = cast("dict[Any, Any]", config.data_files or {})
            return {str(split): [str(name) for name in names] for split, names in splits.items()}


def _matches(root: Path, pattern: str) -> Generator[Path]:
    """What below a directory matches a pattern; raises DataError for one that is none of it."""
    try:
        yield from root.glob(pattern)
    except (NotImplementedError, ValueError) as error:  # an absolute one, or a broken one
        raise DataError(
            f"data.files: {pattern!r} is no pattern inside {root} ({error}); give one such as "
            "data.files='*.jsonl'"
        ) from error


def _has_match(path: str, pattern: str | None, split: str) -> bool:
    root = Path(path)
    if not pattern or not root.is_dir():
        return False
    return any(_matches(root, pattern.replace("{split}", split)))


def _subset_of(file: Path, source: Source) -> str | None:
    return file.parent.name if file.parent.name in source.known_subsets else None


@contextmanager
def _hub_errors(path: str) -> Generator[None]:
    """Turn what `datasets` raises about files that it cannot find or reach into our error."""
    # The class that its HTTP client raises, by whichever name that client goes.
    from huggingface_hub.errors import (  # noqa: PLC0415 - seconds, and not for files
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    )

    try:
        yield
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        raise DataError(
            f"data.path: {path!r} cannot be loaded ({type(error).__name__}: {error}); "
            "give data.path=FILE, or data.files=PATTERN inside a directory or repository"
        ) from error
