"""Difficulty: a number that the metadata of each problem states, and what a run makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from conf.errors import DataError
from conf.schema import DifficultyConfig
from rl.problems.prompts import meta_fields
from rl.types import Prompt

_MAX_NAMED = 3  # problems that a message names


def within(prompts: Sequence[Prompt], cfg: DifficultyConfig) -> list[Prompt]:
    """The problems whose number lies within the bounds; all where no number is asked for.

    Raises:
        DataError: for problems without it, and where none is left.
    """
    if cfg.field is None:
        return list(prompts)
    numbers = numbers_of(prompts, cfg.field)
    low = -math.inf if cfg.low is None else cfg.low
    high = math.inf if cfg.high is None else cfg.high
    kept = [prompt for prompt in prompts if low <= numbers[prompt.id] <= high]
    if prompts and not kept:
        raise DataError(
            f"data.difficulty: no problem has a {cfg.field} from {low:g} to {high:g}; those of "
            f"the problems are from {min(numbers.values()):g} to {max(numbers.values()):g}: widen "
            "data.difficulty.low and data.difficulty.high"
        )
    return kept


def ranks_of(prompts: Sequence[Prompt], cfg: DifficultyConfig) -> Mapping[str, float]:
    """By what the problems of an epoch are ordered, by id; nothing where they are shuffled."""
    if cfg.field is None or cfg.order == "shuffled":
        return {}
    sign = 1 if cfg.order == "ascending" else -1
    return {name: sign * number for name, number in numbers_of(prompts, cfg.field).items()}


def numbers_of(prompts: Sequence[Prompt], field: str) -> dict[str, float]:
    """The number of each problem, by id.

    >>> numbers_of([Prompt(id="a", messages=(), meta='{"pass_rate": 0.25}')], "pass_rate")
    {'a': 0.25}

    Raises:
        DataError: naming problems that have none.
    """
    found = {prompt.id: _number(prompt.meta, field) for prompt in prompts}
    lacking = [name for name, number in found.items() if number is None]
    if lacking:
        raise DataError(
            f"data.difficulty.field: {len(lacking)} of {len(found)} problems have no number "
            f"{field!r} in their meta ({', '.join(lacking[:_MAX_NAMED])}); give the name of a "
            "number that all have, or drop these problems"
        )
    return cast("dict[str, float]", found)


def _number(meta: str, field: str) -> float | None:
    value = meta_fields(meta).get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of floats
        return None
