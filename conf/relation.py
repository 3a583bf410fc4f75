"""What a rule between keys is: data for the check, for the messages and for the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conf.schema import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One rule: where it is reported, which keys it ties, when it holds, and what to do if not."""

    path: str  # the key that the fault is reported at; one of `involves`
    involves: tuple[str, ...]  # dotted; their values are shown in the fault
    rule: str
    fix: str
    holds: Callable[[Config], bool]
