"""Synthetic problems of minipy: recombined from known ones, without tests; and their filters.

A problem takes its filter, map and reduction from three parents, drawn uniformly or by a walk over
their concepts. Two kinds are planted, so that
the errors of the filters can be told apart: `ambiguous` ones, whose reduction has two readings, and
`outside` ones, which are well posed but of a form that no training problem has. The filters judge
by what sampled programs do: how many agree on all inputs, and how far their outputs are from
unanimity, and how far a reward model puts the agreeing ones above the others.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rl.problems.making.concepts import Concept, ConceptGraph
from rl.problems.minipy import (
    CONSTANTS,
    ENTRY_POINT,
    FILTERS,
    Combination,
    Numbers,
    Spec,
    held_out_combinations,
)
from rl.seeds import derive_seed
from rl.types import Message, Prompt

Planted = Literal["plain", "outside", "ambiguous"]
PLANTED: tuple[Planted, ...] = ("plain", "outside", "ambiguous")
# The one in the middle place, or the median; that of extremes, or of ends; the last, or largest.
AMBIGUOUS = ("middle", "difference", "end")
_PARITIES, _SIGNS = (0, 1), (2, 3, 4, 5)  # filters that can be joined and still keep something

Combine = Literal["uniform", "walk"]
_KINDS = ("filter", "map", "reduction")

Reason = Literal["statement", "contamination", "agreement", "delta", "gap", "duplicate"]
REASONS: tuple[Reason, ...] = (
    "statement",
    "contamination",
    "agreement",
    "delta",
    "gap",
    "duplicate",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A problem that was made, and what is known of it."""

    prompt: Prompt
    planted: Planted
    combination: Combination | None  # None outside the grammar
    inputs: tuple[Numbers, ...]  # on which sampled programs are run


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How many of the problems are planted."""

    ambiguous: float
    outside: float


def make_candidates(  # noqa: PLR0913 - what is made of what, and how
    parents: Sequence[Prompt],
    num: int,
    shares: Shares,
    num_inputs: int,
    seed: int,
    *,
    combine: Combine = "uniform",
) -> list[Candidate]:
    """Recombine problems of minipy; the held-out combinations are not avoided."""
    choose = _Choice(parents, combine)
    made: list[Candidate] = []
    for index in range(num):
        rng = random.Random(derive_seed(seed, "synthetic problem", index))
        draw = rng.random()
        planted: Planted = "plain"
        if draw < shares.ambiguous + shares.outside:
            planted = "ambiguous" if draw < shares.ambiguous else "outside"
        chosen = choose.parents(rng)
        keep, change, fold = (_combination(one)[place] for place, one in enumerate(chosen))
        spec = Spec((keep, change, fold), rng.choice(CONSTANTS), rng.choice(CONSTANTS))
        question, concepts = _written(spec, planted, rng)
        meta = {"concepts": concepts, "parents": [parent.id for parent in chosen]}
        made.append(
            Candidate(
                prompt=Prompt(
                    id=f"synthetic-{seed}-{index}",
                    messages=(Message("user", question),),
                    entry_point=ENTRY_POINT,
                    source="synthetic",
                    meta=json.dumps(meta | {"planted": planted}),
                ),
                planted=planted,
                combination=spec.combination if planted == "plain" else None,
                inputs=tuple(_input(spec.filter_k, rng) for _ in range(num_inputs)),
            )
        )
    return made


class _Choice:
    """Whose filter, map and reduction, in this order, a new problem takes."""

    def __init__(self, parents: Sequence[Prompt], combine: Combine) -> None:
        self._parents = parents
        concepts_P = [
            {Concept(_KINDS[place], str(part)) for place, part in enumerate(_combination(parent))}
            for parent in parents
        ]
        self._graph = ConceptGraph(concepts_P) if combine == "walk" else None

    def parents(self, rng: random.Random) -> list[Prompt]:
        if self._graph is None:
            return [rng.choice(self._parents) for _ in _KINDS]
        walked = {concept.kind: concept for concept in self._graph.walk(len(_KINDS), rng)}
        holders = [self._graph.holders(walked[kind]) for kind in _KINDS]
        return [self._parents[rng.choice(places)] for places in holders]


def _combination(parent: Prompt) -> Combination:
    return cast("Combination", tuple(json.loads(parent.meta)["combination"]))


def _written(spec: Spec, planted: Planted, rng: random.Random) -> tuple[str, list[str]]:
    """The question and the phrases that it is made of."""
    keep, change, fold = (part.phrase for part in spec.parts)
    if planted == "plain":
        return spec.question, [keep, change, fold]
    if planted == "ambiguous":
        fold = rng.choice(AMBIGUOUS)
        kept = [keep]
    elif rng.random() < 0.5:  # no number is left out
        kept = []
    else:
        kept = [FILTERS[rng.choice(_PARITIES)].phrase, FILTERS[rng.choice(_SIGNS)].phrase]
    numbers = f"the numbers in xs that are {' and '.join(kept)}" if kept else "the numbers in xs"
    text = f"Return the {fold} of the {change.format(k=spec.map_k)} of "
    return f"{text}{numbers.format(k=spec.filter_k)}.", [*kept, change, fold]


def _input(k: int, rng: random.Random) -> Numbers:
    """Numbers at the border of a filter, and some of each parity on either side of it."""
    xs = rng.sample([k - 1, k, k + 1, -k, 0, 1, -1], 4)
    xs += [2 * rng.randint(5, 15), 2 * rng.randint(5, 15) + 1, k * rng.randint(2, 4)]
    xs += [-2 * rng.randint(1, 10), -2 * rng.randint(1, 10) - 1]
    rng.shuffle(xs)
    return xs


# ---------------------------------------------------------------- filters


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
    candidates: Iterable[Candidate], known: Collection[str], held_out: Collection[str]
) -> tuple[list[Candidate], dict[str, Reason]]:
    """What is left before anything is sampled, and why the others are left out, by id.

    `known` are questions of training, `held_out` those of evaluation and probe, in any layout;
    combinations that are held out are contamination too, whatever their constants.
    """
    combinations = held_out_combinations()
    secret = set(map(_plain, held_out))
    seen = set(map(_plain, known))
    left: list[Candidate] = []
    reasons: dict[str, Reason] = {}
    for candidate in candidates:
        text = _plain(candidate.prompt.question)
        if text in secret or candidate.combination in combinations:
            reasons[candidate.prompt.id] = "contamination"
        elif text in seen:
            reasons[candidate.prompt.id] = "statement"
        else:
            left.append(candidate)
        seen.add(text)
    return left, reasons


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


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


# ---------------------------------------------------------------- card


def make_card(
    candidates: Sequence[Candidate],
    observed: Sequence[Observed],
    reasons: dict[str, Reason],
    filters: Filters,
) -> dict[str, Any]:
    """What each filter left out of each kind, and how well the bounds find ambiguous ones."""
    kinds = {candidate.prompt.id: candidate.planted for candidate in candidates}
    left_out = Counter((reason, kinds[name]) for name, reason in reasons.items())
    made = Counter(kinds.values())
    kept = {
        kind: made[kind] - sum(left_out[reason, kind] for reason in REASONS) for kind in PLANTED
    }
    return {
        "made": {kind: made[kind] for kind in PLANTED},
        "left_out": {
            reason: {kind: left_out[reason, kind] for kind in PLANTED} for reason in REASONS
        },
        "kept": kept,
        "sampled": {
            kind: _of_kind([one for one in observed if one.candidate.planted == kind])
            for kind in PLANTED
        },
        "finds_ambiguous": _finders(observed, filters),
    }


def _finders(observed: Sequence[Observed], filters: Filters) -> dict[str, dict[str, float | None]]:
    """Each bound alone, on all problems that were sampled: as a finder of ambiguous ones.

    `gap_of_agreed` is that of the problems that agreement and delta would keep.
    """
    faults = [set(filters.faults(one)) for one in observed]
    ways: dict[str, set[Reason]] = {
        "agreement": {"agreement"},
        "delta": {"delta"},
        "both": {"agreement", "delta"},
    }
    if filters.min_gap is not None:
        ways |= {"gap": {"gap"}, "all": {"agreement", "delta", "gap"}}
    found = {
        name: _found(observed, [bool(which & fault) for fault in faults])
        for name, which in ways.items()
    }
    if filters.min_gap is not None:
        agreed = [one for one in observed if not ways["both"] & set(filters.faults(one))]
        dropped = ["gap" in filters.faults(one) for one in agreed]
        found["gap_of_agreed"] = _found(agreed, dropped)
    return found


def _of_kind(observed: Sequence[Observed]) -> dict[str, float | None]:
    num = len(observed)
    gaps = [one.gap for one in observed if one.gap is not None]
    return {
        "problems": num,
        "mean_delta": sum(one.delta for one in observed) / num if num else None,
        "mean_agreement": sum(one.agreement for one in observed) / num if num else None,
        "mean_gap": sum(gaps) / len(gaps) if gaps else None,
    }


def _found(observed: Sequence[Observed], dropped: Sequence[bool]) -> dict[str, float | None]:
    """Precision and recall, and the share of well-posed problems that is lost."""
    lost = Counter(
        one.candidate.planted for one, gone in zip(observed, dropped, strict=True) if gone
    )
    all_of = Counter(one.candidate.planted for one in observed)

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return {
        "precision": share(lost["ambiguous"], sum(dropped)),
        "recall": share(lost["ambiguous"], all_of["ambiguous"]),
        "plain_lost": share(lost["plain"], all_of["plain"]),
        "outside_lost": share(lost["outside"], all_of["outside"]),
    }
