"""Labelled programs: each once, with the verdict of execution; what a reward model is judged by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from reward.pairs.pairs import LabelledCode
from reward.pairs.rollout_sources import RolloutCode, find_rollouts, iter_rows
from rl.types import Verdict


@dataclass(slots=True)
class Labelled:
    """Programs with labels, and how many were left out, by why."""

    codes: list[LabelledCode] = field(default_factory=list[LabelledCode])
    left_out: Counter[str] = field(default_factory=Counter[str])


def read_labelled(inputs: Sequence[str]) -> Labelled:
    """Read what `reward.pairs.rollout_sources.find_rollouts` finds.

    An identical program of a problem counts once. Left out are completions without code, programs
    that were not run or whose run says nothing, and those on which runs disagree. Raises UserError
    when there is no file, DataError when one is none of rollouts or samples.
    """
    found = Labelled()
    by_program: dict[tuple[str, str], LabelledCode] = {}
    disputed: set[tuple[str, str]] = set()
    for file in find_rollouts(inputs, "rollouts"):
        for row in iter_rows(file):
            why = _why_not(row)
            if why:
                found.left_out[why] += 1
                continue
            code = row.labelled()
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


def _why_not(row: RolloutCode) -> str:
    """Why a completion says nothing; empty when it does."""
    if not row.code:
        return f"no code: {row.reason}"
    if row.verdict is None:
        return "not executed"
    silent = {Verdict.SANDBOX_ERROR: "sandbox error", Verdict.UNJUDGED: "unjudged"}
    return silent.get(row.verdict, "")
