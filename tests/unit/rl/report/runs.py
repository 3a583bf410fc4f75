"""Run directories as `train.py` leaves them, small."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rl.run.rollouts import RolloutRow, write_rollouts
from rl.types import Verdict

ROW = RolloutRow(
    step=1,
    prompt_id="add",
    question="Add one to x.",
    sample_idx=0,
    text="Here:\n```python\ndef f(x):\n    return x + 1\n```",
    code="def f(x):\n    return x + 1",
    reason="ok",
    score=1.5,
    reward=1.7,
    advantage=0.25,
    num_tokens=12,
    finish="stop",
    policy_version=0,
    judge="rm",
)


def rows(step: int, num_problems: int = 3, group_size: int = 2) -> list[RolloutRow]:
    """A step's completions, each different."""
    return [
        replace(
            ROW,
            step=step,
            prompt_id=f"p{problem}",
            question=f"Add {problem} to x.",
            sample_idx=index,
            text=f"```python\ndef f(x):\n    return x + {problem}  # {step}.{index}\n```",
            code=f"def f(x):\n    return x + {problem}  # {step}.{index}",
        )
        for problem in range(num_problems)
        for index in range(group_size)
    ]


def bundle(step: int) -> list[RolloutRow]:
    """Programs and tests of two problems: a right program, a wrong one, an answer without one."""
    programs = [
        replace(row, verdict=Verdict.WRONG_ANSWER if row.sample_idx else Verdict.PASSED)
        for row in rows(step, num_problems=2, group_size=3)
    ]
    programs = [
        replace(row, text="?", code="", reason="no_block", verdict=Verdict.NO_CODE)
        if row.sample_idx == 2
        else row
        for row in programs
    ]
    tests = [
        replace(
            row,
            prompt_id=f"{row.prompt_id}#test",
            question=f"{row.question} Write a test.",
            text=f"assert f({row.sample_idx}) == 1",
            code=f"assert f({row.sample_idx}) == 1",
            score=None,
            judge="matrix",
            task="test",
            problem_id=row.prompt_id,
            passed_by=("110", "100")[row.sample_idx],
        )
        for row in rows(step, num_problems=2, group_size=2)
    ]
    return [*programs[:3], *tests[:2], *programs[3:], *tests[2:]]


def line(step: int, **more: float) -> dict[str, float]:
    """The metrics of a step."""
    return {
        "step": step,
        "reward/mean": 1.0 + step,
        "reward/valid_rate": 0.9,
        "reward/reason/ok": 0.9,
        "reward/reason/syntax": 0.1,
        "time/rollout_s": 2.0,
        "time/score_s": 0.5,
        "time/update_s": 3.0,
        "time/publish_s": 0.25,
        "time/step_s": 6.0,
        **more,
    }


def make_run(
    directory: Path,
    steps: Sequence[Sequence[RolloutRow]],
    *,
    summary: dict[str, Any] | None = None,
) -> Path:
    """A run whose step n, from 1, left the n-th rollouts."""
    directory.mkdir(parents=True, exist_ok=True)
    for step, found in enumerate(steps, 1):
        write_rollouts(directory / "rollouts" / f"step-{step:06d}.parquet", found)
    lines = [json.dumps(line(step)) + "\n" for step in range(1, len(steps) + 1)]
    (directory / "metrics.jsonl").write_text("".join(lines))
    if summary is not None:
        (directory / "summary.json").write_text(json.dumps(summary))
    return directory
