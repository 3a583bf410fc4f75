"""Golden scores: what plain transformers says of a few programs, for an engine to agree with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from conf.errors import EngineError, UserError
from rl.base.files import lack_of
from rl.base.json_text import JsonFault, parse_json

GOLDEN_SCORES = "golden_scores.json"
_LARGEST = 3e38  # of float32
_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.15}
_FORM = 'a list of {"question": text, "code": text, "score": number}'


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenScore:
    """One program, and its score."""

    question: str
    code: str
    score: float


def find_golden_scores(model: str, given: str | None, key: str) -> Path | None:
    """The file that a model is compared with: the `given` one, or the one in its directory.

    None where there is neither. `key` is what a command calls the given one.

    Raises:
        UserError: for a file that is not there, or holds something else.
    """
    path = Path(given) if given is not None else Path(model) / GOLDEN_SCORES
    if (lack := lack_of(path)) is not None:
        if given is None:
            return None
        raise UserError(f"{key}: the file {given} {lack}; give {_FORM} as JSON")
    read_golden_scores(path)
    return path


def read_golden_scores(path: Path) -> list[GoldenScore]:
    """The scores of a file, at least one.

    Raises:
        UserError: for a file that holds something else.
    """
    try:
        rows: object = parse_json(path.read_bytes(), finite=True)
    except JsonFault as error:
        raise UserError(f"{path}: {error}; it holds {_FORM}") from error
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: holds {rows!r:.40}; it has to hold {_FORM}, at least one")
    return [_golden_score(path, index, row) for index, row in enumerate(cast("list[object]", rows))]


def _golden_score(path: Path, index: int, row: object) -> GoldenScore:
    fields = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    question, code, score = (fields.get(name) for name in ("question", "code", "score"))
    if (
        isinstance(question, str)
        and isinstance(code, str)
        and isinstance(score, int | float)
        and not isinstance(score, bool)
        and abs(score) <= _LARGEST
    ):
        return GoldenScore(question=question, code=code, score=float(score))
    raise UserError(f"{path}: entry {index} ({json.dumps(row)[:60]}) does not fit {_FORM}")


def compare_with_golden(
    path: Path, dtype: str, score: Callable[[Sequence[GoldenScore]], Sequence[float]]
) -> None:
    """Compare the scores of an engine with those of a file.

    Raises:
        EngineError: when one is further away than the dtype explains.
    """
    rows = read_golden_scores(path)
    theirs = np.array([row.score for row in rows])
    difference = float(np.abs(np.array(score(rows)) - theirs).max())
    if not difference <= _TOLERANCE[dtype]:  # not a number either
        raise EngineError(
            f"the reward model scores its golden probes {difference:.3g} away from {path} "
            f"(allowed with {dtype}: {_TOLERANCE[dtype]}); check the adapter, the model's chat "
            "template and whether the file is of these weights"
        )
