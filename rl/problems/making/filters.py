"""Filters of problems that were made: what is known of them, and what is left out.

They judge by statements, and by what sampled programs do: how many agree on all inputs, how far
their outputs are from unanimity, and how far a reward model puts the agreeing ones above the
others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rl.problems.datasets.requests import bare_statement
from rl.problems.making.overlap import Overlap
from rl.problems.minipy import Combination, held_out_combinations
from rl.types import Prompt

# Of minipy, where all but plain ones are planted; or written by a model.
Kind = Literal["plain", "outside", "ambiguous", "written"]
PLANTED: tuple[Kind, ...] = ("plain", "outside", "ambiguous")
WRITTEN: tuple[Kind, ...] = ("written",)
Reason = Literal[
    "unreadable",
    "statement",
    "contamination",
    "overlap",
    "agreement",
    "delta",
    "gap",
    "duplicate",
]
REASONS: tuple[Reason, ...] = get_args(Reason)

Input = tuple[Any, ...] | str  # arguments of a call, or a text on standard input


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A problem that was made, and what is known of it."""

    prompt: Prompt
    kind: Kind
    inputs: tuple[Input, ...]  # on which sampled programs are run
    combination: Combination | None = None  # of minipy's grammar


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Bounds of what is kept."""

    min_agreement: int  # programs that agree on all inputs
    delta_band: tuple[float, float]  # both ends are inside
    min_gap: float | None = None  # None where no reward model was asked

    def faults(self, one: Observed) -> list[Reason]:
        """Which of the bounds a problem passes over, in the order of `REASONS`."""
        low, high = self.delta_band
        is_close = self.min_gap is not None and one.gap is not None and one.gap < self.min_gap
        over: dict[Reason, bool] = {
            "agreement": one.agreement < self.min_agreement,
            "delta": not low <= one.delta <= high,
            "gap": is_close,
        }
        return [reason for reason, is_over in over.items() if is_over]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the sampled programs of a problem did."""

    candidate: Candidate
    agreement: int  # programs of the largest cluster that agrees on all inputs
    delta: float
    program: str  # normal form of a program of that cluster; "" where there is none
    agreeing: tuple[str, ...] = ()  # the programs of that cluster
    others: tuple[str, ...] = ()  # other programs that return something for every input
    gap: float | None = None  # of scores; None where none was asked for, or a side has no program


def largest_cluster(outputs_NM: NDArray[np.int32]) -> tuple[int, int | None]:
    """How many programs agree on all inputs, and the first of them; -1 is no output.

    >>> largest_cluster(np.array([[0, 1], [0, 0], [0, 1], [-1, 1]], dtype=np.int32))
    (2, 0)
    """
    rows = [tuple(row) for row in outputs_NM.tolist()]
    counts = Counter(row for row in rows if row and -1 not in row)
    if not counts:
        return 0, None
    row, count = counts.most_common(1)[0]
    return count, rows.index(row)


def delta_of(outputs_NM: NDArray[np.int32]) -> float:
    """1 - mean over inputs of the share of the most frequent output, as in QueST (2510.17715).

    A program without an output has no say, but counts.

    >>> delta_of(np.array([[0, 0], [0, 1], [0, -1], [0, -1]], dtype=np.int32))
    0.375
    """
    shares = [
        max(Counter(c for c in column if c >= 0).values(), default=0) / len(column)
        for column in outputs_NM.T.tolist()
    ]
    return 1.0 - sum(shares) / len(shares)


def score_gap(agreeing: Sequence[float], others: Sequence[float]) -> float | None:
    """Mean score of programs that agree, less the best of the others; None without either.

    A difference within a problem, because the level of scores differs between problems.

    >>> score_gap([5.0, 7.0], [-1.0, 2.0]), score_gap([5.0], [])
    (4.0, None)
    """
    return sum(agreeing) / len(agreeing) - max(others) if agreeing and others else None


def sift_statements(
    candidates: Iterable[Candidate],
    known: Collection[str],
    held_out: Collection[str],
    ngram: int | None = None,
) -> tuple[list[Candidate], dict[str, Reason]]:
    """What is left before anything is sampled, and why the others are left out, by id.

    `known` are questions of training, `held_out` those of evaluation and probe, in any layout;
    combinations that are held out are contamination too, whatever their constants. With `ngram` so
    are statements that have that many words in a row in common with a held-out one.
    """
    combinations = held_out_combinations()
    secret = set(map(_plain, held_out))
    overlap = None if ngram is None else Overlap(map(bare_statement, held_out), ngram)
    seen = set(map(_plain, known))
    left: list[Candidate] = []
    reasons: dict[str, Reason] = {}
    for candidate in candidates:
        question = candidate.prompt.question
        text = _plain(question)
        if text in secret or candidate.combination in combinations:
            reasons[candidate.prompt.id] = "contamination"
        elif overlap is not None and overlap.has(bare_statement(question)):
            reasons[candidate.prompt.id] = "overlap"
        elif text in seen:
            reasons[candidate.prompt.id] = "statement"
        else:
            left.append(candidate)
        seen.add(text)
    return left, reasons


def _plain(question: str) -> str:
    return " ".join(bare_statement(question).lower().split())


def sift_observed(
    observed: Sequence[Observed], filters: Filters
) -> tuple[list[Prompt], dict[str, Reason]]:
    """The rows that are kept, and why the others are left out, by id: the first filter counts."""
    programs: set[str] = set()
    kept: list[Prompt] = []
    reasons: dict[str, Reason] = {}
    for one in observed:
        prompt = one.candidate.prompt
        faults = filters.faults(one)
        if faults:
            reasons[prompt.id] = faults[0]
        elif one.program in programs:
            reasons[prompt.id] = "duplicate"
        else:
            found = {"delta": round(one.delta, 6), "agreement": one.agreement}
            found |= {} if one.gap is None else {"gap": round(one.gap, 4)}
            kept.append(replace(prompt, meta=json.dumps(json.loads(prompt.meta) | found)))
            programs.add(one.program)
    return kept, reasons
