"""Rollout files: every judged completion of a step as a parquet row."""

# pyarrow ships no type information; what leaves it is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rl.types import FloatArray, JudgedGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """One completion and what became of it."""

    step: int
    prompt_id: str
    question: str
    sample_idx: int
    text: str
    code: str  # "" unless valid
    reason: str  # of extraction
    score: float | None  # raw
    reward: float
    advantage: float | None  # None where nothing was learned from it
    num_tokens: int
    finish: str
    policy_version: int
    judge: str = ""  # "rm" or "execution"; "" in files that are older than this column
    verdict: str | None = None  # None where no test was run
    num_passed: int | None = None  # tests; None where they were not all run
    num_tests: int | None = None


_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("prompt_id", pa.string()),
        ("question", pa.large_string()),
        ("sample_idx", pa.int32()),
        ("text", pa.large_string()),
        ("code", pa.large_string()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("reward", pa.float64()),
        ("advantage", pa.float64()),
        ("num_tokens", pa.int32()),
        ("finish", pa.string()),
        ("policy_version", pa.int32()),
        ("judge", pa.string()),
        ("verdict", pa.string()),
        ("num_passed", pa.int32()),
        ("num_tests", pa.int32()),
    ]
)


def rollout_rows(
    step: int, groups_P: Sequence[JudgedGroup], advantages_PG: Sequence[FloatArray] | None
) -> Iterator[RolloutRow]:
    """The rows of a batch; `advantages_PG` is None for an evaluation."""
    for position, judged in enumerate(groups_P):
        for index, completion in enumerate(judged.group.completions_G):
            advantage = None if advantages_PG is None else float(advantages_PG[position][index])
            yield RolloutRow(
                step=step,
                prompt_id=completion.prompt_id,
                question=judged.group.prompt.question,
                sample_idx=completion.sample_idx,
                text=completion.text,
                code=judged.extractions_G[index].code,
                reason=judged.extractions_G[index].reason.value,
                score=judged.scores_G[index].value,
                reward=float(judged.rewards_G[index]),
                advantage=advantage,
                num_tokens=len(completion.token_ids),
                finish=completion.finish.value,
                policy_version=completion.policy_version,
                judge=judged.judge.value,
                verdict=judged.scores_G[index].verdict,
                num_passed=judged.scores_G[index].num_passed,
                num_tests=judged.scores_G[index].num_tests,
            )


def write_rollouts(path: Path, rows: Sequence[RolloutRow]) -> None:
    """Write one file, in place only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [getattr(row, name) for row in rows] for name in _SCHEMA.names}
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table(columns, schema=_SCHEMA), partial)
    partial.rename(path)


def read_rollouts(path: Path) -> list[RolloutRow]:
    """Read one file."""
    return [RolloutRow(**row) for row in pq.read_table(path).to_pylist()]
