"""RM-Bench (arXiv 2410.16184): does a reward model prefer what is right to what is well presented?

An item has three right and three wrong responses, in rising effort of presentation: concise,
detailed plain text, detailed markdown. `matrix[i][j]` is the share of items whose right response of
style i scores strictly higher than the wrong one of style j. Below the diagonal the right one is
the better presented (easy), on it both are alike (normal), above it the wrong one is (hard).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from conf.errors import DataError
from rl.base.json_text import JsonFault, parse_json

DOMAINS = ("chat", "code", "math", "safety")  # a name that goes on, as safety-refuse, belongs to it
NUM_STYLES = 3
_WHOLE = "total_dataset.json"  # all items, each with its `domain`
_MAX_FAULTS_SHOWN = 20
_LARGEST = sys.float_info.max  # a whole number beyond it is no float


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One problem with its right and wrong responses, by style."""

    domain: str
    id: int | str
    prompt: str
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemScores:
    """The scores of one item's responses, by style."""

    domain: str
    id: int | str
    chosen: tuple[float, ...]
    rejected: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFigures:
    """What the items of one domain say.

    >>> scores = ItemScores(domain="code", id=1, chosen=(1.0, 2.0, 3.0), rejected=(1.5, 1.5, 1.5))
    >>> found = domain_figures([scores])
    >>> found.easy, round(found.normal, 3), found.hard
    (1.0, 0.667, 0.3333333333333333)
    """

    matrix: tuple[tuple[float, ...], ...]  # [chosen style][rejected style]
    num_items: int
    num_ties: int  # of 9 comparisons an item; a tie is not a win

    @property
    def easy(self) -> float:
        """Mean below the diagonal."""
        return float(np.array(self.matrix)[np.tril_indices(NUM_STYLES, -1)].mean())

    @property
    def normal(self) -> float:
        """Mean of the diagonal."""
        return float(np.diag(np.array(self.matrix)).mean())

    @property
    def hard(self) -> float:
        """Mean above the diagonal."""
        return float(np.array(self.matrix)[np.triu_indices(NUM_STYLES, 1)].mean())

    @property
    def average(self) -> float:
        """Mean of easy, normal and hard."""
        return (self.easy + self.normal + self.hard) / 3


def domain_figures(scores: Sequence[ItemScores]) -> DomainFigures:
    """Return the figures of one domain's items, of which there is at least one."""
    chosen_NS = np.array([item.chosen for item in scores], dtype=np.float64)
    rejected_NS = np.array([item.rejected for item in scores], dtype=np.float64)
    wins_NSS = chosen_NS[:, :, None] > rejected_NS[:, None, :]
    ties_NSS = chosen_NS[:, :, None] == rejected_NS[:, None, :]
    return DomainFigures(
        matrix=tuple(tuple(map(float, row)) for row in wins_NSS.mean(axis=0)),
        num_items=len(scores),
        num_ties=int(ties_NSS.sum()),
    )


def figures(scores: Sequence[ItemScores]) -> dict[str, DomainFigures]:
    """Return the figures of each domain that has items; all of safety is one domain."""
    parts = {name: [item for item in scores if item.domain == name] for name in DOMAINS}
    return {name: domain_figures(part) for name, part in parts.items() if part}


def figures_json(domains: Mapping[str, DomainFigures]) -> dict[str, Any]:
    """The figures as OUT.json states them: shares from 0 to 1.

    A difficulty is the mean of the domains', so the average is the mean over domains as well as
    over difficulties.
    """
    rows = {
        name: {"easy": d.easy, "normal": d.normal, "hard": d.hard, "average": d.average}
        for name, d in domains.items()
    }
    means = {
        name: float(np.mean([row[name] for row in rows.values()]))
        for name in ("easy", "normal", "hard", "average")
    }
    return {"domains": rows, **means}


# ---------------------------------------------------------------- files


def read_items(path: Path) -> list[Item]:
    """Read the published files: a directory with some of them, or one file.

    `total_dataset.json` has items of all domains and is then the only one read; other files belong
    to the domain that their name starts with. Raises DataError with `file:item:field` for all that
    is malformed.
    """
    items: list[Item] = []
    faults: list[str] = []
    for file in _files(path):
        for number, row in enumerate(_load(file), start=1):
            try:
                items.append(_item(f"{file}:{number}", file, row))
            except DataError as error:
                faults.append(str(error))
    _raise(faults)
    if not items:
        raise DataError(f"{path}: holds no item")
    return items


def read_scores(path: Path) -> list[ItemScores]:
    """Read stored scores: a list of `{domain, id, chosen: [3], rejected: [3]}`.

    Raises DataError with `file:item:field` for everything that is malformed.
    """
    scores: list[ItemScores] = []
    faults: list[str] = []
    for number, row in enumerate(_load(path), start=1):
        try:
            scores.append(_item_scores(f"{path}:{number}", row))
        except DataError as error:
            faults.append(str(error))
    _raise(faults)
    if not scores:
        raise DataError(f"{path}: holds no scores")
    return scores


def scores_json(scores: Sequence[ItemScores]) -> str:
    """The text that `read_scores` reads: one item a line."""
    return "[\n" + ",\n".join(json.dumps(asdict(item)) for item in scores) + "\n]\n"


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"data: {path} does not exist; give data=DIR with the files of RM-Bench")
    if (path / _WHOLE).is_file():
        return [path / _WHOLE]
    found = [file for file in sorted(path.glob("*.json")) if file.name.startswith(DOMAINS)]
    if not found:
        raise DataError(
            f"{path}: has no file of RM-Bench; they are called {_WHOLE}, or "
            f"{', '.join(f'{name}*.json' for name in DOMAINS)}"
        )
    return found


def _load(path: Path) -> list[object]:
    try:
        value: object = parse_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except JsonFault as fault:
        raise DataError(f"{path}:{fault.line}:{fault.column}: {fault}") from fault
    if not isinstance(value, list):
        raise DataError(f"{path}:1:1: a JSON list is needed, not {type(value).__name__}")
    return cast("list[object]", value)


def _item(place: str, file: Path, row: object) -> Item:
    fields = _fields(place, row)
    prompt = _text(place, "prompt", fields.get("prompt"))
    if not prompt.strip():
        raise DataError(f"{place}:prompt: must not be empty ({_show(prompt)})")
    return Item(
        domain=_domain(place, fields.get("domain", file.name)),
        id=_id(place, fields),
        prompt=prompt,
        chosen=tuple(_text(place, "chosen", value) for value in _three(place, fields, "chosen")),
        rejected=tuple(
            _text(place, "rejected", value) for value in _three(place, fields, "rejected")
        ),
    )


def _item_scores(place: str, row: object) -> ItemScores:
    fields = _fields(place, row)
    return ItemScores(
        domain=_domain(place, fields.get("domain")),
        id=_id(place, fields),
        chosen=tuple(_number(place, "chosen", value) for value in _three(place, fields, "chosen")),
        rejected=tuple(
            _number(place, "rejected", value) for value in _three(place, fields, "rejected")
        ),
    )


def _fields(place: str, row: object) -> Mapping[str, object]:
    if not isinstance(row, dict):
        raise DataError(f"{place}:item: an object is needed ({_show(row)})")
    return cast("dict[str, object]", row)


def _domain(place: str, name: object) -> str:
    """The domain of a name that starts with it."""
    for domain in DOMAINS:
        if isinstance(name, str) and name.startswith(domain):
            return domain
    raise DataError(f"{place}:domain: starts with one of {', '.join(DOMAINS)} ({_show(name)})")


def _id(place: str, fields: Mapping[str, object]) -> int | str:
    value = fields.get("id")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{place}:id: a number or a text is needed ({_show(value)})")
    return value


def _three(place: str, fields: Mapping[str, object], name: str) -> list[object]:
    value = fields.get(name)
    if not isinstance(value, list) or len(cast("list[object]", value)) != NUM_STYLES:
        shown = _show(cast("object", value))
        raise DataError(f"{place}:{name}: a list of {NUM_STYLES} is needed ({shown})")
    return cast("list[object]", value)


def _text(place: str, name: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}:{name}: a text is needed ({_show(value)})")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{place}:{name}: holds a lone surrogate, no text") from error
    return value


def _number(place: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise DataError(f"{place}:{name}: a score is a finite number ({_show(value)})")
    return float(value)


def _raise(faults: Sequence[str]) -> None:
    if faults:
        left_out = len(faults) - _MAX_FAULTS_SHOWN
        more = [f"... and {left_out} more malformed items"] if left_out > 0 else []
        raise DataError("\n".join([*faults[:_MAX_FAULTS_SHOWN], *more]))


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
