"""Programs and what execution said of them, from the files that runs and evaluations leave.

Rollout files (`rl.rollouts`) know whether a program passed; samples of an evaluation (`rl.samples`)
also know how many tests it passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reward.pairs import LabelledCode
from rl.errors import DataError
from rl.rollouts import RolloutRow, read_rollouts
from rl.samples import UNDECIDED, SampleRow, read_samples

PASSED = "PASSED"
_SAMPLES = ".samples.jsonl"


@dataclass(slots=True)
class Labelled:
    """Programs with labels, and how many were left out, by why."""

    codes: list[LabelledCode] = field(default_factory=list[LabelledCode])
    left_out: Counter[str] = field(default_factory=Counter[str])


def read_labelled(paths: Sequence[Path]) -> Labelled:
    """Read files, and directories with `*.parquet` rollouts or `*.samples.jsonl` samples.

    An identical program of a problem counts once. Left out are completions without code, programs
    that were not run or whose run says nothing, and those on which runs disagree. Raises DataError
    when a file is missing or none of the two kinds.
    """
    found = Labelled()
    by_program: dict[tuple[str, str], LabelledCode] = {}
    disputed: set[tuple[str, str]] = set()
    for path in _files(paths):
        for code, reason in _read(path):
            if code is None:
                found.left_out[reason] += 1
                continue
            identity = (code.question, code.code)
            known = by_program.setdefault(identity, code)
            if known is not code:
                found.left_out["copy of another"] += 1
            if known.passed is not code.passed:
                disputed.add(identity)
    if disputed:
        found.left_out["runs disagree"] += len(disputed)
    found.codes = [code for key, code in by_program.items() if key not in disputed]
    return found


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: does not exist; give rollout files or directories with some")
        if path.is_file():
            yield path
            continue
        inside = sorted([*path.rglob("*.parquet"), *path.rglob(f"*{_SAMPLES}")])
        if not inside:
            raise DataError(f"{path}: has no *.parquet and no *{_SAMPLES}")
        yield from inside


def _read(path: Path) -> Iterator[tuple[LabelledCode | None, str]]:
    """Each row as a labelled program, or why it is none."""
    if path.name.endswith(_SAMPLES):
        for row in read_samples(path):
            yield _of_sample(path, row)
        return
    try:
        rows = read_rollouts(path)
    except (OSError, ValueError, TypeError) as error:  # unreadable, no parquet, other columns
        raise DataError(f"{path}: is not a file of rollouts ({error})") from error
    for row in rows:
        yield _of_rollout(row)


def _of_rollout(row: RolloutRow) -> tuple[LabelledCode | None, str]:
    if not row.code:
        return None, f"no code: {row.reason}"
    if row.verdict is None or row.verdict == UNDECIDED:
        return None, "not executed" if row.verdict is None else "sandbox error"
    passed = row.verdict == PASSED
    return (
        LabelledCode(
            prompt_id=row.prompt_id,
            question=row.question,
            code=row.code,
            passed=passed,
            num_passed=int(passed),
            num_tests=1,
            step=row.step,
            policy_version=row.policy_version,
        ),
        "",
    )


def _of_sample(path: Path, row: SampleRow) -> tuple[LabelledCode | None, str]:
    if not row.code:
        return None, f"no code: {row.reason}"
    if row.verdict == UNDECIDED:
        return None, "sandbox error"
    questions = [turn["content"] for turn in row.prompt if turn.get("role") == "user"]
    if not questions:
        raise DataError(f"{path}:{row.problem_id}:prompt: has no user turn")
    return (
        LabelledCode(
            prompt_id=row.problem_id,
            question=questions[-1],
            code=row.code,
            passed=row.verdict == PASSED,
            num_passed=row.num_passed,
            num_tests=row.num_tests,
            step=0,
            policy_version=0,
        ),
        "",
    )
