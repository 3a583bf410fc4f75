"""Raw data sets -> canonical problems (`rl.prompts`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rl.errors import DataError, UserError
from rl.types import Message, Prompt

_MBPP_REQUEST = (
    "{text}\nYour code must pass this test:\n{test}\n"
    "Answer with one Python code block that holds the function."
)


def read_problems(source: str, path: Path, max_bad_rows: int = 0) -> list[Prompt]:
    """Read one published data set from a local file.

    Raises:
        UserError: for an unknown source.
        DataError: `file:line:column: rule (value)` for rows that break the source's schema.
    """
    if source not in SOURCES:
        raise UserError(f"source: {source!r} is not one of {sorted(SOURCES)}")
    if not path.is_file():
        raise DataError(f"data.path: {path} is no file; give data.path=FILE")
    prompts: list[Prompt] = []
    faults: list[str] = []
    for number, row in _json_lines(path):
        try:
            prompts.append(SOURCES[source](row))
        except (KeyError, TypeError, ValueError) as error:
            faults.append(f"{path}:{number}: {source} needs {error} ({str(row)[:80]})")
    if len(faults) > max_bad_rows:
        raise DataError("\n".join(faults[:20]))
    return prompts


def split_by_id(prompts: Sequence[Prompt], eval_share: float) -> tuple[list[Prompt], list[Prompt]]:
    """Training and held-out problems; a problem's side depends on nothing but its id."""

    def held_out(prompt: Prompt) -> bool:
        digest = blake2b(prompt.id.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") < eval_share * 2**32

    return [p for p in prompts if not held_out(p)], [p for p in prompts if held_out(p)]


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(
                        f"{path}:{number}:{error.colno}: not JSON ({error.msg})"
                    ) from error


def _mbpp(row: dict[str, Any]) -> Prompt:
    """One row of MBPP: text, test_list, test_setup_code, task_id."""
    tests = {"assert": list(row["test_list"]), "setup": row.get("test_setup_code") or ""}
    request = _MBPP_REQUEST.format(text=row["text"], test=row["test_list"][0])
    return Prompt(
        id=f"mbpp-{row['task_id']}",
        messages=(Message("user", request),),
        tests=json.dumps(tests),
        source="mbpp",
        meta=json.dumps({"task_id": row["task_id"]}),
    )


SOURCES: dict[str, Callable[[dict[str, Any]], Prompt]] = {"mbpp": _mbpp}
