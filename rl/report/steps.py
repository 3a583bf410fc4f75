"""The completions of one step as a compressed text that a page carries and unpacks on demand.

Code is stored as a place in its completion, and a problem's text once for all steps. Where a step
is larger than its share of the page, a part of it is kept: the first completions in an order of
problems that is the same at every step, so that steps show the same problems. All answers about a
problem stand together.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl.report.matrices import matrices_of
from rl.run.rollouts import RolloutRow
from rl.types import Verdict

MAX_TEXT = 24_000  # characters of one completion; more is cut out of its middle
DECIMALS = 4  # of scores, rewards and advantages
_SAFETY = 0.95  # shrink a little below the estimate, so that the second try mostly fits


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedStep:
    """One step as the page carries it."""

    step: int
    num_rows: int  # completions of the step
    num_shown: int  # of these, in `data`
    rewards: Mapping[str, float]  # mean over all of them, by task: those of two are no one scale
    pass_rate: float | None  # over those with a verdict; None where nothing was executed
    prompt_ids: tuple[str, ...]  # problems in `data`
    data: str  # base64 of gzipped JSON


def pack_step(rows: Sequence[RolloutRow], homes: Mapping[str, int], limit_bytes: int) -> PackedStep:
    """Pack the completions of one step into at most `limit_bytes`, but at least one of them.

    `homes` maps problems to the step that carries their text; texts of others are packed here.
    """
    ordered = sorted(rows, key=lambda row: _rank(row.problem))
    num_shown = len(ordered)
    data = _compress(_payload(ordered, num_shown, homes))
    while len(data) > limit_bytes and num_shown > 1:
        estimate = int(num_shown * limit_bytes / len(data) * _SAFETY)
        num_shown = max(1, min(num_shown - 1, estimate))
        data = _compress(_payload(ordered, num_shown, homes))
    executed = [row.verdict is Verdict.PASSED for row in rows if row.verdict is not None]
    return PackedStep(
        step=rows[0].step,
        num_rows=len(rows),
        num_shown=num_shown,
        rewards=_rewards(rows),
        pass_rate=statistics.fmean(executed) if executed else None,
        prompt_ids=tuple(dict.fromkeys(row.prompt_id for row in ordered[:num_shown])),
        data=data,
    )


def _rewards(rows: Sequence[RolloutRow]) -> dict[str, float]:
    tasks = dict.fromkeys(row.task for row in rows)
    return {
        task: statistics.fmean(row.reward for row in rows if row.task == task) for task in tasks
    }


def _rank(problem_id: str) -> bytes:
    """A place among all problems that depends on nothing else."""
    return hashlib.sha256(problem_id.encode()).digest()


def _payload(
    ordered: Sequence[RolloutRow], num_shown: int, homes: Mapping[str, int]
) -> dict[str, Any]:
    rows = ordered[:num_shown]
    asked = {row.prompt_id: row for row in rows}
    places = {prompt_id: place for place, prompt_id in enumerate(asked)}
    texts = [clip(row.text) for row in rows]
    return {
        "problems": [
            {"id": prompt_id, "about": row.problem}
            | ({"home": homes[prompt_id]} if prompt_id in homes else {"question": row.question})
            for prompt_id, row in asked.items()
        ],
        "matrices": [matrix.shown(num_shown) for matrix in matrices_of(ordered)],
        "problem": [places[row.prompt_id] for row in rows],
        "task": [row.task for row in rows],
        "text": texts,
        "code": [place_code(t, row.code) for t, row in zip(texts, rows, strict=True)],
        "sample_idx": [row.sample_idx for row in rows],
        "reason": [row.reason for row in rows],
        "num_tokens": [row.num_tokens for row in rows],
        "finish": [row.finish for row in rows],
        "verdict": [row.verdict for row in rows],
        "num_passed": [row.num_passed for row in rows],
        "num_tests": [row.num_tests for row in rows],
        "score": [_rounded(row.score) for row in rows],
        "reward": [_rounded(row.reward) for row in rows],
        "advantage": [_rounded(row.advantage) for row in rows],
    }


def clip(text: str) -> str:
    """`text`, or its two ends where it is longer than `MAX_TEXT`."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[... {left_out:,} characters left out ...]\n{text[-half:]}"


def place_code(text: str, code: str) -> str | tuple[int, int]:
    """Where `code` stands in `text`, start and length in UTF-16 units; itself if it does not.

    >>> place_code("so: x = 1", "x = 1"), place_code("", "y"), place_code("any", "")
    ((4, 5), 'y', '')
    """
    start = text.find(code) if code else -1
    return clip(code) if start < 0 else (_units(text[:start]), _units(code))


def _units(text: str) -> int:
    """Its length as JavaScript counts it."""
    return len(text.encode("utf-16-le")) // 2


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, DECIMALS)


def _compress(payload: Mapping[str, Any]) -> str:
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode("ascii")
