"""Card of problems that were made: what each filter left out, and how well the bounds do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rl.problems.making.filters import (
    PLANTED,
    REASONS,
    WRITTEN,
    Filters,
    Kind,
    Observed,
    Reason,
)


def make_card(
    kinds: Mapping[str, Kind],
    observed: Sequence[Observed],
    reasons: Mapping[str, Reason],
    filters: Filters,
) -> dict[str, Any]:
    """What each filter left out of each kind, and how well the bounds find ambiguous ones.

    `kinds` are those of all problems that were asked for, by id; the latter can be told only where
    ambiguous ones are planted.
    """
    columns = PLANTED if set(PLANTED) & set(kinds.values()) else WRITTEN
    left_out = Counter((reason, kinds[name]) for name, reason in reasons.items())
    made = Counter(kinds.values())
    card: dict[str, Any] = {
        "made": {kind: made[kind] for kind in columns},
        "left_out": {
            reason: {kind: left_out[reason, kind] for kind in columns} for reason in REASONS
        },
        "kept": {
            kind: made[kind] - sum(left_out[reason, kind] for reason in REASONS) for kind in columns
        },
        "sampled": {
            kind: _of_kind([one for one in observed if one.candidate.kind == kind])
            for kind in columns
        },
    }
    return card | ({"finds_ambiguous": _finders(observed, filters)} if columns is PLANTED else {})


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
    lost = Counter(one.candidate.kind for one, gone in zip(observed, dropped, strict=True) if gone)
    all_of = Counter(one.candidate.kind for one in observed)

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return {
        "precision": share(lost["ambiguous"], sum(dropped)),
        "recall": share(lost["ambiguous"], all_of["ambiguous"]),
        "plain_lost": share(lost["plain"], all_of["plain"]),
        "outside_lost": share(lost["outside"], all_of["outside"]),
    }


Table = tuple[str, list[tuple[str, ...]], tuple[str, ...]]  # title, rows, heads


def tables_of(card: Mapping[str, Any]) -> Iterator[Table]:
    """A card, as people read it."""
    kinds = tuple(card["made"])
    parts = [("made", card["made"])]
    parts += [(f"left out: {reason}", card["left_out"][reason]) for reason in REASONS]
    parts.append(("kept", card["kept"]))
    rows = [(name, *(str(nums[kind]) for kind in kinds)) for name, nums in parts]
    for figure in ("mean_delta", "mean_agreement", "mean_gap"):
        cells = (_text(card["sampled"][kind][figure]) for kind in kinds)
        rows.append((figure.replace("_", " "), *cells))
    yield "problems", rows, ("", *kinds)
    if unread := card.get("unreadable"):
        whys = [(why.replace("_", " "), str(num)) for why, num in unread.items()]
        yield "unreadable", whys, ("why", "answers")
    if found := card.get("finds_ambiguous"):
        names = ("precision", "recall", "plain_lost", "outside_lost")
        figures = [
            (way.replace("_", " "), *(_text(found[way][name]) for name in names)) for way in found
        ]
        heads = ("", *(name.replace("_", " ") for name in names))
        yield "bounds as finders of ambiguous problems", figures, heads


def _text(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"
