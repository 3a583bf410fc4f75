"""Problems that tests of filters and cards share, and what programs did with them."""

from __future__ import annotations

from rl.problems.making.filters import Candidate, Filters, Observed
from rl.problems.making.recombined import Shares, make_candidates
from rl.problems.minipy import make_prompts

SHARES = Shares(ambiguous=0.2, outside=0.2)
FILTERS_OF_8 = Filters(min_agreement=5, delta_band=(0.05, 0.4))
PARENTS = make_prompts("train", 40, 0)


def made(num: int = 300, seed: int = 0) -> list[Candidate]:
    return make_candidates(PARENTS, num, SHARES, 4, seed)


def seen(candidate: Candidate, agreement: int, delta: float, program: str = "") -> Observed:
    name = program or candidate.prompt.id
    return Observed(candidate=candidate, agreement=agreement, delta=delta, program=name)
