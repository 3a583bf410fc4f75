"""Contents of what a run reads: whether its problems and models are still those of its first steps.

`config.yaml` has their paths, under which other files may lie by the time that a run is resumed;
`inputs.json` has a size and a digest of each.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from conf.errors import UserError
from conf.keys import keys_of
from conf.rules.problems import problem_files
from conf.schema import Config
from rl.base.files import lack_of
from rl.base.json_text import JsonFault, parse_json
from rl.run.start.changes import matches
from rl.text.hub_files import model_digest

Content = Mapping[str, Any]  # path, size and sha256 of a file; path and digest of a model


def contents_of(cfg: Config) -> dict[str, Content]:
    """What a run reads from disks, by the key that names it; models of a hub are left out.

    A file is read as a whole, a model by its small files and by blocks of its weights.
    """
    found: dict[str, Content] = {key: _of_file(path) for key, path in _files(cfg)}
    if not cfg.loop.enabled:  # which makes its models
        for key, model in (("model.path", cfg.model.path), ("reward.model", cfg.reward.model)):
            if model is not None and os.path.isdir(model):
                found[key] = {"path": model, "digest": model_digest(Path(model))}
    return found


def read_contents(path: Path) -> dict[str, Content]:
    """What the steps so far have read; nothing for a run of before this was written down.

    Raises:
        UserError: for a file that holds something else.
    """
    if not path.is_file():
        return {}
    try:
        found: object = parse_json(path.read_bytes())
    except JsonFault:
        found = None
    by_key = cast("dict[str, object]", found) if isinstance(found, dict) else {"": None}
    if not all(isinstance(content, dict) for content in by_key.values()):
        raise UserError(
            f"resume: {path}, which says what the steps so far have read, cannot be read; remove "
            "it to go on without this check, or give another name="
        )
    return cast("dict[str, Content]", by_key)


def check_same_contents(path: Path, cfg: Config) -> list[str]:
    """The keys whose files are others than those that `path` has, and may be.

    A key that names something else now is left to the comparison of the configurations.

    Raises:
        UserError: naming the files, unless `resume_allow` has their keys.
    """
    before, now = read_contents(path), contents_of(cfg)
    changed = [
        key for key in before if key in now and _identity(before[key]) != _identity(now[key])
    ]
    faults = [
        f"{key}: {now[key]['path']} is not what the steps so far were made with: its content is "
        f"another ({_shown(before[key])}, and now {_shown(now[key])}; {path}); put it back, give "
        f"another name=, or resume_allow=[{_owner(key)}]"
        for key in changed
        if not matches(_owner(key), cfg.resume_allow or ())
    ]
    if faults:
        raise UserError("\n".join(faults))
    return [f"the content of {key}" for key in changed]


def _files(cfg: Config) -> Iterator[tuple[str, str]]:
    named = dict(problem_files(cfg.data))
    if cfg.probe.every and cfg.probe.path is not None:
        named["probe.path"] = cfg.probe.path
    args = cfg.recipe_args or {}
    named |= {f"recipe_args.{name}": arg for name, arg in args.items() if isinstance(arg, str)}
    yield from ((key, path) for key, path in named.items() if lack_of(path) is None)


def _of_file(path: str) -> Content:
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"path": path, "size": file.tell(), "sha256": digest}


def _identity(content: Content) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "path"}


def _shown(content: Content) -> str:
    digest = str(content.get("sha256", content.get("digest")))[:12]
    size = content.get("size")
    return digest if size is None else f"{size} bytes, {digest}"


def _owner(key: str) -> str:
    """The key of the configuration that holds one, such as `data.sources` of its paths."""
    names = (one.path for one in keys_of(Config))
    return next(name for name in names if key == name or key.startswith(f"{name}."))
